"""A sampler that goes wrong on one rank: `plugins=[tests/parallel/failing.py] sampler=failing`."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from framework.interfaces.sampler import Sampler, SamplingParams, TokenHistory
from framework.registry import SAMPLERS

if TYPE_CHECKING:
    from torch import Tensor

AFTER_STEPS = 8
"""Past the warm-up"""


@SAMPLERS.register("failing")
class Failing(Sampler):
    """Greedy, until step 8 on the rank that `where` names; `how` it ends there: raise or stall."""

    def __init__(self, vocab_size: int, device: Any, *, how: str = "raise", where: str = "worker") -> None:
        super().__init__(vocab_size, device)
        self.how, self.where, self.num_steps = how, where, 0

    @classmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        return None

    def prepare(self, params: Any, out: Any = None) -> Any:
        return None

    def sample(
        self, logits_RV: Tensor, prepared: Any, seed_R: Tensor, position_R: Tensor, history: TokenHistory
    ) -> Tensor:
        self.num_steps += 1
        # A worker's steps run on its main thread, those of rank 0 on the device's.
        here = "worker" if threading.current_thread() is threading.main_thread() else "rank0"
        if here == self.where and self.num_steps > AFTER_STEPS:
            if self.how == "raise":
                raise ArithmeticError("rank 1 went wrong")
            while True:
                self._stuck_here()
        return logits_RV.argmax(-1)

    def _stuck_here(self) -> None:
        time.sleep(0.01)
