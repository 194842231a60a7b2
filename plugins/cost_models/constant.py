"""Every step costs the same, plus a constant per token. This is for tests and for reasoning about policies."""

from __future__ import annotations

from framework.interfaces.cost_model import CostModel, Deployment, StepCost, StepShape
from framework.registry import COST_MODELS


@COST_MODELS.register("constant")
class Constant(CostModel):
    """`step_s + token_s * tokens` on the device, padding included, and `host_s` on the host, whatever the hardware."""

    def __init__(
        self, deployment: Deployment, *, step_s: float = 0.004, token_s: float = 2e-5, host_s: float = 0.0
    ) -> None:
        """
        Args:
            step_s: device time per step, in seconds.
            token_s: device time per token, in seconds.
            host_s: host time per step, in seconds. The device hides it with engine.overlap=1.
        """
        super().__init__(deployment)
        for name, value in (("step_s", step_s), ("token_s", token_s), ("host_s", host_s)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"cost_model.{name}={value} must be a finite number of seconds, at least 0")
        if step_s == 0 and token_s == 0:
            raise ValueError("cost_model.step_s and cost_model.token_s are both 0: no time would pass; raise one")
        self.step_s, self.token_s, self.host_s = step_s, token_s, host_s

    def cost(self, step: StepShape) -> StepCost:
        return StepCost(self.step_s + self.token_s * step.padded_tokens, self.host_s)
