"""Errors with a meaning of their own; bad values from users are plain `ValueError`."""


class PluginError(RuntimeError):
    """A plugin broke a rule of its interface. The message names the plugin, the rule and the request or block.

    `is_named` means that the message names the plugin already, so that the plugin that was called is not blamed for it.
    """

    def __init__(self, message: str, *, is_named: bool = False) -> None:
        super().__init__(message)
        self.is_named = is_named


class StuckError(PluginError):
    """With this scheduler or router the run would never end."""


class RefusedError(ValueError):
    """A router refused a request. It ends as rejected, with this message; the others go on."""


class IncompatibleError(ValueError):
    """Plugins, model and machine cannot work together. The cell is skipped, with this message as the reason."""


class RankError(RuntimeError):
    """A rank of a tensor-parallel engine died, raised or stalled. Its traceback, if it left one, is a note of this."""


class NotFiniteError(ValueError):
    """The logits of a row hold NaN or infinities, so that no token can be chosen. Its request has failed."""

    def __init__(self, step: int, dtype: str) -> None:
        remedy = "the model overflows in this type, or its weights hold such numbers; try executor.dtype=float32"
        if dtype == "float32":
            remedy = "the weights hold such numbers, or they make the model overflow in any type; check the checkpoint"
        super().__init__(f"logits that are not finite numbers (NaN or infinity) in step {step}, in {dtype}: {remedy}")


class EngineEndedError(RuntimeError):
    """An earlier call failed in a way that this engine cannot go on from; its cause is the first failure."""


class RequestCutOffError(RuntimeError):
    """An interrupt struck while the request's own state was being changed, so that it cannot go on."""
