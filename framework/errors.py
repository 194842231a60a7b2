"""Errors with a meaning of their own; bad values from users are plain `ValueError`."""


class PluginError(RuntimeError):
    """A plugin broke a rule of its interface. The message names the plugin, the rule and the request or block."""


class StuckError(PluginError):
    """With this scheduler the run would never end."""


class IncompatibleError(ValueError):
    """Plugins, model and machine cannot work together: the cell is skipped, with this message as the reason."""


class RankError(RuntimeError):
    """A rank of a tensor-parallel engine died, raised or stalled. Its traceback, where there is one, is a note."""
