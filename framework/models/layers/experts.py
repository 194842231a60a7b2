"""A mixture of experts in plain PyTorch: the reference for kernels, and what runs on a CPU.

Each rank holds a slice of the features of every expert, so that all ranks do equal work whatever the router chooses,
and the outputs are summed over the ranks once per block.

Shape letters: T tokens of the step, D model size, E experts, K experts per token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framework.models.layers.activation import make_gate
from framework.models.layers.expert_shape import Experts
from framework.models.layers.placement import Placement
from framework.models.layers.weight_slot import ShardId, WeightSlot, WeightSource

_GATE, _UP, _DOWN = range(3)


class ExpertMLP(nn.Module):
    """The feed-forward block of a layer with experts.

    Attributes:
        load_E: how many tokens each expert was given since `load_E` was last set to 0, padding of graphs included.
    """

    load_E: Tensor

    def __init__(self, experts: Experts, hidden_size: int, activation: str, *, place: Placement) -> None:
        super().__init__()
        self.experts, self.group = experts, place.group
        self._hidden_size = hidden_size
        self._size = place.group.share(experts.size, "features of an expert")
        self.router = place.empty(experts.number, hidden_size)
        self.gate_up = place.empty(experts.number, 2 * self._size, hidden_size)
        self.down = place.empty(experts.number, hidden_size, self._size)
        self.act = make_gate(activation)
        load_E = torch.zeros(experts.number, dtype=torch.int64, device=place.device)
        self.register_buffer("load_E", load_E, persistent=False)

    def forward(self, hidden_TD: Tensor) -> Tensor:
        """[T, D] -> [T, D], the same on every rank."""
        weight_TK, expert_TK = self.route(hidden_TD)
        out_TD = torch.zeros_like(hidden_TD)
        chosen = expert_TK.flatten()
        count_E = torch.bincount(chosen, minlength=self.experts.number)
        self.load_E += count_E
        order = chosen.argsort(stable=True)  # the choices of expert 0 first, in the order of their tokens
        end = 0
        for expert, count in enumerate(count_E.tolist()):
            if not count:
                continue
            choice_C = order[end : end + count]
            end += count
            token_C = choice_C // self.experts.per_token
            gated_CI = self.act(F.linear(hidden_TD[token_C], self.gate_up[expert]))
            out_CD = F.linear(gated_CI, self.down[expert]) * weight_TK.flatten()[choice_C, None]
            out_TD.index_add_(0, token_C, out_CD.to(out_TD.dtype))
        return self.group.all_reduce(out_TD)

    def route(self, hidden_TD: Tensor) -> tuple[Tensor, Tensor]:
        """The weights and the numbers of the experts of each token, [T, K] each; every rank computes the same."""
        share_TE = F.linear(hidden_TD, self.router).softmax(-1, dtype=torch.float32)
        weight_TK, expert_TK = share_TE.topk(self.experts.per_token, dim=-1)
        if self.experts.normalise:
            weight_TK = weight_TK / weight_TK.sum(-1, keepdim=True)
        return weight_TK.to(hidden_TD.dtype), expert_TK

    def slots(self) -> dict[str, WeightSlot]:
        """Name in the checkpoint, below the layer's -> slot."""
        slots = {self.experts.router_name: WeightSlot(self, "router")}
        for expert in range(self.experts.number):
            for part, name in enumerate(self.experts.projections):
                where = "down" if part == _DOWN else "gate_up"
                slots[f"{self.experts.expert.format(expert)}.{name}.weight"] = WeightSlot(
                    self, where, 3 * expert + part
                )
        return slots

    def full_shape(self, param_name: str, shard_id: ShardId = None) -> tuple[int, ...]:
        if param_name == "router":
            return (self.experts.number, self._hidden_size)
        size, hidden = self.experts.size, self._hidden_size
        return (hidden, size) if param_name == "down" else (size, hidden)

    def load(self, param_name: str, source: WeightSource, shard_id: ShardId = None) -> None:
        if param_name == "router":
            self.router.data.copy_(source[:])
            return
        assert isinstance(shard_id, int)
        expert, part = divmod(shard_id, 3)
        own = slice(self.group.rank * self._size, (self.group.rank + 1) * self._size)
        if part == _DOWN:
            self.down.data[expert].copy_(source[:, own])
        else:
            start = self._size if part == _UP else 0
            self.gate_up.data[expert, start : start + self._size].copy_(source[own])


def router_load(model: nn.Module) -> dict[str, object]:
    """How evenly the routers spread tokens over experts, for the record; empty for a model without experts.

    Returns:
        `tokens` through each layer's router, and over the layers the mean and the largest of `busiest`, the load of the
        busiest expert relative to an even spread (1 is even, and the number of experts the most), and the number of
        experts that were `unused`.
    """
    loads = [module.load_E for module in model.modules() if isinstance(module, ExpertMLP)]
    if not loads or not (tokens := int(loads[0].sum())):
        return {}
    busiest = [float(load_E.max() * len(load_E) / load_E.sum()) for load_E in loads]
    first = next(module for module in model.modules() if isinstance(module, ExpertMLP))
    return {
        "router_load": {
            "tokens": tokens // first.experts.per_token,
            "busiest_mean": round(sum(busiest) / len(busiest), 3),
            "busiest_max": round(max(busiest), 3),
            "unused": sum(int((load_E == 0).sum()) for load_E in loads),
        }
    }


def reset_router_load(model: nn.Module) -> None:
    """Forget the tokens so far, such as those of the warm-up."""
    for module in model.modules():
        if isinstance(module, ExpertMLP):
            module.load_E.zero_()
