"""ServeLab: a plugin laboratory for LLM inference engines.

from framework import LLM, SamplingParams, analysis, run, sweep

Importing this package loads neither torch nor pandas: each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from framework.app.cells import run, sweep
    from framework.app.llm import LLM
    from framework.interfaces.sampling_params import SamplingParams
    from framework.records import analysis

__version__ = "0.1.0"
__all__ = ["LLM", "SamplingParams", "analysis", "run", "sweep"]

_WHERE = {
    "LLM": ("framework.app.llm", "LLM"),
    "SamplingParams": ("framework.interfaces.sampling_params", "SamplingParams"),
    "analysis": ("framework.records.analysis", None),
    "run": ("framework.app.cells", "run"),
    "sweep": ("framework.app.cells", "sweep"),
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _WHERE[name]
    found = import_module(module)
    return found if attribute is None else getattr(found, attribute)
