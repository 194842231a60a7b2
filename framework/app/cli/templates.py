"""What `python -m framework new` writes: for each kind the simplest plugin that is right."""

from __future__ import annotations

_SCHEDULER = '''"""What this policy does and which requests gain from it, in one sentence."""

from framework.interfaces import Queue, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS


@SCHEDULERS.register("{name}")
class {class_name}(Scheduler):
    """First come first served: change the order of `waiting` to make it yours. Name the paper if there is one.

    Args:
        max_prompts: waiting requests that are admitted in a step at most.
    """

    def __init__(self, *, max_prompts: int = 8) -> None:
        if max_prompts < 1:
            raise ValueError(f"scheduler.max_prompts={{max_prompts}} must be at least 1")
        self.max_prompts = max_prompts

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        preempted = False
        for request in tuple(queue.running):
            while request.running and plan.add(request) is Verdict.NO_BLOCKS:
                plan.preempt(queue.running[-1])  # the youngest recomputes later
                preempted = True
        if preempted:
            return  # the blocks just freed belong to the running requests
        waiting = sorted(queue.waiting, key=lambda request: request.id)
        for request in waiting[: self.max_prompts]:
            if plan.add(request) is not Verdict.OK:
                break
'''

_EVICTION = '''"""What this policy keeps and why, in one sentence."""

from framework.interfaces import CachedBlock, ScorePolicy
from framework.registry import EVICTIONS


@EVICTIONS.register("{name}")
class {class_name}(ScorePolicy):
    """The lowest score goes first: change `score` to make it yours. Name the paper if there is one.

    Args:
        seconds_per_hit: how much longer a block is kept for each time that a request found it.
    """

    def __init__(self, *, seconds_per_hit: float = 10.0) -> None:
        super().__init__()
        self.seconds_per_hit = seconds_per_hit

    def score(self, block: CachedBlock) -> float:
        return block.last_used_s + self.seconds_per_hit * block.hits
'''

_SAMPLER = '''"""What this sampler draws from, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from framework.interfaces.sampler import Sampler, SamplingParams, TokenHistory
from framework.registry import SAMPLERS

if TYPE_CHECKING:
    from torch import Tensor


@SAMPLERS.register("{name}")
class {class_name}(Sampler):
    """The most likely token. For noise use `framework.toolkit.samplers.noise`, a function of (seed, position)."""

    graph_safe = True

    @classmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        if not params.greedy or params.has_penalties or params.logit_bias:
            return "sampler={name} takes the most likely token only; choose sampler=full"
        return None

    def prepare(self, params: Sequence[SamplingParams], out: Any = None) -> Any:
        return None  # tensors that `sample` reads; with `out`, an earlier result, write into those: a graph reads them

    def sample(
        self, logits_RV: Tensor, prepared: Any, seed_R: Tensor, position_R: Tensor, history: TokenHistory
    ) -> Tensor:
        return logits_RV.argmax(-1)
'''

_ATTENTION = '''"""How this backend attends and where it is good, in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from framework.interfaces.attention import AttentionBackend, AttentionSpec, BatchLayout, GraphSupport
from framework.registry import ATTENTIONS

if TYPE_CHECKING:
    from torch import Tensor


@ATTENTIONS.register("{name}")
class {class_name}(AttentionBackend):
    """Plain PyTorch, tile by tile with an online softmax: change `_attend` to make it yours. Name the paper if any.

    Decode rows attend together and can be captured in a graph; each prompt chunk attends alone.

    Args:
        tile_tokens: positions of each context that are read at once.
    """

    graph_support = GraphSupport.DECODE

    def __init__(self, spec: AttentionSpec, *, tile_tokens: int = 512) -> None:
        super().__init__(spec)
        if tile_tokens < 1:
            raise ValueError(f"attention.tile_tokens={{tile_tokens}} must be at least 1")
        self._tile_blocks = -(-tile_tokens // spec.block_size)

    @classmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        if spec.kv_dtype != spec.dtype:
            return f"attention={name} has no cache of another type than {{spec.dtype}}; set executor.kv_dtype=auto"
        return None

    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        spec = self.spec
        return (2, num_blocks + 1, spec.block_size, spec.num_kv_heads, spec.head_size)  # one more, for padding

    def plan(self, batch: BatchLayout) -> BatchLayout:
        return batch

    def forward(
        self, layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor, kv_cache: Tensor, metadata: BatchLayout
    ) -> Tensor:
        import torch

        batch, num_decode = metadata, metadata.num_decode_rows
        cache_2SMH = kv_cache.view(2, -1, *kv_cache.shape[3:])
        cache_2SMH[0, batch.slot_mapping_T] = k_TMH  # slot -1, of padding, is the last one: in a block of no request
        cache_2SMH[1, batch.slot_mapping_T] = v_TMH
        out_TNH = torch.zeros_like(q_TNH)
        if num_decode:
            longest = max(batch.seq_lens_host[:num_decode], default=None)  # in a graph the host knows no lengths
            position_R1 = batch.seq_lens_R[:num_decode, None] - 1
            table_RB = self._blocks(batch.block_table_RB[:num_decode], longest)
            out_TNH[:num_decode] = self._attend(q_TNH[:num_decode, None], position_R1, table_RB, kv_cache)[:, 0]
        for row in range(num_decode, batch.num_rows):
            tokens = slice(batch.query_start_host[row], batch.query_start_host[row + 1])
            table_1B = self._blocks(batch.block_table_RB[row : row + 1], batch.seq_lens_host[row])
            position_1C = batch.positions_T[None, tokens]
            out_TNH[tokens] = self._attend(q_TNH[None, tokens], position_1C, table_1B, kv_cache)[0]
        return out_TNH

    def _blocks(self, table_RB: Tensor, longest: int | None) -> Tensor:
        num_columns = table_RB.shape[1] if longest is None else -(-longest // self.spec.block_size)
        return table_RB[:, :num_columns].long()

    def _attend(self, q_RCNH: Tensor, position_RC: Tensor, table_RB: Tensor, kv_cache: Tensor) -> Tensor:
        """C new tokens of each of R rows, the query heads that share a KV head side by side: Q = C * N / M queries."""
        import torch

        size, group = self.spec.block_size, self.spec.num_heads // self.spec.num_kv_heads
        q_RCMGH = q_RCNH.float().unflatten(2, (-1, group)) * self.spec.scale
        q_RMQH = q_RCMGH.transpose(1, 2).flatten(2, 3)
        last_RQ = position_RC.repeat_interleave(group, 1)
        best_RMQ1 = torch.full_like(q_RMQH[..., :1], torch.finfo(torch.float32).min)
        total_RMQ1, out_RMQH = torch.zeros_like(best_RMQ1), torch.zeros_like(q_RMQH)
        for first in range(0, table_RB.shape[1], self._tile_blocks):
            block_RB = table_RB[:, first : first + self._tile_blocks].clamp(0, kv_cache.shape[1] - 1)
            k_RMLH, v_RMLH = (cache[block_RB].flatten(1, 2).transpose(1, 2).float() for cache in kv_cache)
            position_L = torch.arange(first * size, first * size + k_RMLH.shape[2], device=q_RCNH.device)
            hidden_RQL = position_L > last_RQ.unsqueeze(-1)
            scores_RMQL = (q_RMQH @ k_RMLH.mT).masked_fill(hidden_RQL.unsqueeze(1), -torch.inf)
            # What no token was written to may be NaN, which a weight of 0 does not take away.
            v_RMLH = v_RMLH.masked_fill(hidden_RQL.all(1)[:, None, :, None], 0)
            higher_RMQ1 = best_RMQ1.maximum(scores_RMQL.amax(-1, keepdim=True))
            weights_RMQL, kept_RMQ1 = (scores_RMQL - higher_RMQ1).exp(), (best_RMQ1 - higher_RMQ1).exp()
            total_RMQ1 = total_RMQ1 * kept_RMQ1 + weights_RMQL.sum(-1, keepdim=True)
            out_RMQH, best_RMQ1 = out_RMQH * kept_RMQ1 + weights_RMQL @ v_RMLH, higher_RMQ1
        out_RMQH = out_RMQH / total_RMQ1.clamp(min=torch.finfo(torch.float32).tiny)
        return out_RMQH.unflatten(2, (-1, group)).transpose(1, 2).flatten(2, 3).to(q_RCNH.dtype)
'''

_GRAPH = '''"""Which batch shapes this strategy captures and why, in one sentence."""

from framework.interfaces import BatchShape, GraphKey, GraphLimits, GraphStrategy
from framework.registry import GRAPHS


@GRAPHS.register("{name}")
class {class_name}(GraphStrategy):
    """Decode batches, padded to the next multiple of `every` rows; everything else runs eager.

    Args:
        every: rows from one captured shape to the next.
    """

    def __init__(self, *, every: int = 8) -> None:
        if every < 1:
            raise ValueError(f"graph.every={{every}} must be at least 1")
        self.every = every
        self._sizes: list[int] = []

    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        most = min(limits.max_num_seqs, limits.max_num_batched_tokens)
        self._sizes = [*range(self.every, most, self.every), most]
        return [GraphKey(size, size) for size in reversed(self._sizes)]

    def select(self, shape: BatchShape) -> GraphKey | None:
        if not shape.decode_only:
            return None
        size = next((size for size in self._sizes if size >= shape.num_rows), None)
        return None if size is None else GraphKey(size, size)
'''

_COST_MODEL = '''"""What this model knows about the time of a step, in one sentence."""

from framework.interfaces.cost_model import CostModel, Deployment, StepCost, StepShape
from framework.registry import COST_MODELS


@COST_MODELS.register("{name}")
class {class_name}(CostModel):
    """The weights of the layers are read once per step, and each token adds a constant: change `cost` to make it yours.

    Args:
        token_s: device time of a token, seconds.
        host_s: host time of a step, seconds.
    """

    def __init__(self, deployment: Deployment, *, token_s: float = 2e-5, host_s: float = 1e-4) -> None:
        super().__init__(deployment)
        for key, value in (("token_s", token_s), ("host_s", host_s)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"cost_model.{{key}}={{value}} must be a finite number of seconds, at least 0")
        self.token_s, self.host_s = token_s, host_s
        model, hardware = deployment.model, deployment.hardware
        item_bytes = 4 if deployment.dtype == "float32" else 2
        weight_bytes = model.num_layers * model.layer_parameters * item_bytes / deployment.tp
        self._weights_s = weight_bytes / hardware.bytes_per_s

    def cost(self, step: StepShape) -> StepCost:
        return StepCost(device_s=self._weights_s + self.token_s * step.padded_tokens, host_s=self.host_s)
'''

_ROUTER = '''"""Which replica this router prefers and why, in one sentence."""

from collections.abc import Sequence

from framework.interfaces.router import Arrival, ReplicaView, Router
from framework.registry import ROUTERS


@ROUTERS.register("{name}")
class {class_name}(Router):
    """The replica with the least to do: change `route` to make it yours. Name the paper if there is one.

    Args:
        request_tokens: prompt tokens that are as much to do as one more request.
    """

    def __init__(self, *, request_tokens: int = 200) -> None:
        if request_tokens < 0:
            raise ValueError(f"router.request_tokens={{request_tokens}} must be at least 0")
        self.request_tokens = request_tokens

    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        def load(replica: ReplicaView) -> int:
            return replica.num_prompt_tokens + self.request_tokens * replica.num_requests

        return min(replicas, key=load).index
'''

_PREDICTOR = '''"""What this predictor knows of the length of an answer, in one sentence."""

from framework.interfaces.predictor import LengthDistribution, Predictor
from framework.interfaces.scheduler import RequestView
from framework.registry import PREDICTORS
from framework.toolkit.predictors.lengths import LogNormalLength


@PREDICTORS.register("{name}")
class {class_name}(Predictor):
    """Long prompts, long answers: change `predict` to make it yours. Name the paper if there is one.

    Args:
        tokens_per_prompt_token: median length of an answer, for each token of the prompt.
        sigma: standard deviation of the logarithm of a length.
    """

    def __init__(self, *, tokens_per_prompt_token: float = 0.5, sigma: float = 1.0) -> None:
        for key, value in (("tokens_per_prompt_token", tokens_per_prompt_token), ("sigma", sigma)):
            if not 0 < value < float("inf"):
                raise ValueError(f"predictor.{{key}}={{value}} must be a finite number above 0")
        self.tokens_per_prompt_token, self.sigma = tokens_per_prompt_token, sigma

    def predict(self, request: RequestView) -> LengthDistribution:
        return LogNormalLength(median=self.tokens_per_prompt_token * request.num_prompt, sigma=self.sigma)
'''

_FAMILY = '''"""What this family is, in one sentence, with the paper or the model card that describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.family import Family, flag
from framework.registry import FAMILIES


@FAMILIES.register("{name}")
class {class_name}(Family):
    """Llama with biases that its config asks for: change `traits` to make it yours."""

    architecture = "{class_name}ForCausalLM"
    twin = "llama"  # what `framework check` compares with; remove it if transformers has a model_type {name}
    examples = ({{"mlp_bias": True}},)

    def traits(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {{"mlp_bias": flag(values, "mlp_bias")}}
'''

TEMPLATES = {
    "scheduler": _SCHEDULER,
    "eviction": _EVICTION,
    "attention": _ATTENTION,
    "sampler": _SAMPLER,
    "graph": _GRAPH,
    "cost_model": _COST_MODEL,
    "router": _ROUTER,
    "predictor": _PREDICTOR,
    "family": _FAMILY,
}
"""The template of each kind. Its fields are name and class_name."""

TEST = '''"""{kind}={name} keeps the rules of its interface. Add here what is special about it."""

{imports}from framework.conformance import assert_conforms


def test_conforms() -> None:
    assert_conforms("{kind}={name}"{listed})
'''
"""The test of a plugin; `listed` is a further argument of `assert_conforms`."""
