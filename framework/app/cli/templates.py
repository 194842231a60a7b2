"""What `python -m framework new` writes: for each kind the simplest plugin that is right."""

from __future__ import annotations

_SCHEDULER = '''"""What this policy does and for whom it is better, in one sentence."""

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
            return  # the blocks just freed belong to those who run
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
from typing import TYPE_CHECKING

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

    def prepare(self, params: Sequence[SamplingParams], out: None = None) -> None:
        return None

    def sample(
        self, logits_RV: Tensor, prepared: None, seed_R: Tensor, position_R: Tensor, history: TokenHistory
    ) -> Tensor:
        return logits_RV.argmax(-1)
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
    """The weights of the layers are read once a step, and each token adds a constant: change `cost` to make it yours.

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

from framework.interfaces.router import ReplicaView, Router
from framework.interfaces.scheduler import RequestView
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

    def route(self, request: RequestView, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        def load(replica: ReplicaView) -> int:
            return replica.num_prompt_tokens + self.request_tokens * replica.num_requests

        return min(replicas, key=load).index
'''

TEMPLATES = {
    "scheduler": _SCHEDULER,
    "eviction": _EVICTION,
    "sampler": _SAMPLER,
    "graph": _GRAPH,
    "cost_model": _COST_MODEL,
    "router": _ROUTER,
}
"""By kind; fields: name, class_name."""

TEST = '''"""{kind}={name} keeps the rules of its interface. Add here what is special about it."""

{imports}from framework.conformance import assert_conforms


def test_conforms() -> None:
    assert_conforms("{kind}={name}"{listed})
'''
"""The test of a plugin; `listed` is a further argument of `assert_conforms`."""
