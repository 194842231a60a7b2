"""Step times as they were measured on the device that is simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framework.interfaces.cost_model import CostModel, Deployment, StepCost, StepShape
from framework.registry import COST_MODELS
from framework.toolkit.step_profile import StepProfile

_SHIPPED = Path(__file__).parent / "profiles"


@COST_MODELS.register("profiled")
class Profiled(CostModel):
    """Interpolates the step times of a calibration (`python run.py experiment=calibrate`) of this device, model and tp.

    The idea of simulating from profiled operators is Vidur's (MLSys 2024). This engine measures whole steps instead.
    A profile does not cover the capture of a graph while requests wait. That takes the time in the hardware preset.
    """

    def __init__(self, deployment: Deployment, *, path: str | None = None) -> None:
        """
        Args:
            path: the file of the profile. null takes the one that ServeLab ships for this device, model, dtype and tp.
        """
        super().__init__(deployment)
        self.profile = StepProfile.read(Path(path).expanduser() if path is not None else _shipped(deployment))
        self.profile.check(deployment, path or "the shipped profile")
        self._path = path

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> Sequence[Path]:
        if config["cost_model"].get("path") is not None or "hardware" not in config["executor"]:
            return ()
        name = profile_name(config["executor"]["hardware"], config["model"]["name"], "*", config["executor"]["tp"])
        return sorted(_SHIPPED.glob(name))

    def cost(self, step: StepShape) -> StepCost:
        cost = self.profile.cost(step)
        if step.captures:
            cost = cost._replace(host_s=cost.host_s + self.deployment.hardware.capture_s)
        return cost

    def effective(self) -> dict[str, object]:
        return {
            "profile": self._path or "shipped",
            "measured": self.profile.measured,
            "fit_error": {
                error.regime: {"median": error.median, "p95": error.p95, "points": error.num_points}
                for error in self.profile.errors
            },
        }


def profile_name(hardware: str, model_name: str, dtype: str, tp: int) -> str:
    return f"{hardware}-{model_name}-{dtype}-tp{tp}.json"


def _shipped(deployment: Deployment) -> Path:
    hardware, model = deployment.hardware.name, deployment.model_name
    path = _SHIPPED / profile_name(hardware, model, deployment.dtype, deployment.tp)
    if not path.exists():
        names = ", ".join(sorted(file.stem for file in _SHIPPED.glob("*.json"))) or "none"
        raise ValueError(
            f"no profile for {path.stem} is shipped (there is {names}); make one: "
            f"{StepProfile.command_for(deployment)}, then set cost_model.path; or cost_model=roofline"
        )
    return path
