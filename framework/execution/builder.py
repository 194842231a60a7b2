"""What an executor is: from a checked configuration to an engine that is ready to run.

`executor=local` runs a model on this machine; `executor=simulated` asks a cost model how long each step takes. Another
one, such as a remote device or another runtime, is one class in a file that `plugins=[FILE]` names:

    @EXECUTORS.register("mine")
    class Mine(EngineBuilder):
        def __init__(self, *, speed: float = 1.0) -> None: ...

        def build(self, cfg): ...  # returns a BuiltEngine around an `interfaces.executor.Executor`

Importing such a file must load nothing heavy, since every command imports all of them: what needs torch is imported in
`build`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from framework.config.settings import Settings
from framework.interfaces.cost_model import Deployment

if TYPE_CHECKING:  # discovery imports this module, and it does not wait for an engine
    from framework.execution.built import BuiltEngine


class EngineBuilder(ABC):
    """Registers with `@EXECUTORS.register("name")`, keyword-only parameters, which its `__init__` checks: a value that
    it refuses with a `ValueError` is known before anything is started.
    """

    needs_token_ids: ClassVar[bool] = True
    """Whether its steps read the tokens of a prompt; otherwise a prompt may be a length and the keys of its blocks."""
    is_simulated: ClassVar[bool] = False
    """Whether no model computes the tokens. Then neither weights nor a tokenizer are an input of the cell, answers are
    not words, and there is nothing to calibrate."""

    @abstractmethod
    def build(self, cfg: Settings) -> BuiltEngine:
        """Check that everything works together and build the engine; `cfg.executor` holds the parameters of this one.

        Raises:
            IncompatibleError: plugins, model and machine cannot work together. No weight has been loaded.
            ValueError: a value or a file is wrong in itself.
        """

    def deployment(self, cfg: Settings) -> Deployment | None:
        """What a cost model is built for; None where no cost model is used.

        Raises:
            IncompatibleError, ValueError: as `build`.
        """
        return None

    @classmethod
    def num_gpus(cls, parameters: Mapping[str, Any], num_available: int) -> int:
        """GPUs of this machine, which has `num_available`, that a cell with these parameters needs for itself."""
        return 0
