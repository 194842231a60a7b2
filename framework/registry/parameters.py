"""The parameters of a plugin class, read from its keyword-only `__init__` arguments."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, Optional, Union, get_args, get_origin

from omegaconf import MISSING, SI, OmegaConf
from omegaconf.errors import OmegaConfBaseException

_PRIMITIVES = (int, float, str, bool)
_ALLOWED = "int, float, str, bool, an Enum, Literal[...], and Optional, list[...] or dict[..., ...] of these"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One configuration key of a plugin."""

    name: str
    annotation: Any
    default: Any = MISSING

    @property
    def required(self) -> bool:
        return isinstance(self.default, str) and self.default == MISSING

    @property
    def default_value(self) -> Any:
        """The default in a configuration. A `seed` follows that of the run, whatever number its author put there."""
        follows = self.name == "seed" and isinstance(self.default, int)
        return SI("${seed}") if follows else self.default

    @property
    def type_name(self) -> str:
        return type_name(self.annotation)

    @property
    def is_mapping(self) -> bool:
        """Whether its value is a dict, or one or None."""
        return dict in (get_origin(self.annotation), *map(get_origin, get_args(self.annotation)))

    def field(self) -> tuple[str, Any, Any]:
        """The dataclass field that OmegaConf checks values against."""
        portable = config_type(self.annotation)
        if self.default is None and self.is_mapping:  # which OmegaConf cannot merge into; `wrong_choice` checks it
            portable = Any
        if isinstance(self.default, (list, dict)):
            return self.name, portable, dataclasses.field(default_factory=lambda: self.default)
        return self.name, portable, dataclasses.field(default=self.default_value)


def read_parameters(cls: type, supplied: tuple[str, ...]) -> list[Parameter]:
    """The keyword-only parameters of `cls.__init__`, inherited when `cls` defines none.

    Args:
        supplied: Names of the positional arguments that the framework passes at construction.

    Raises:
        TypeError: for a positional parameter that the framework does not supply, `**kwargs`, a missing annotation, or
            a type that a configuration cannot hold.
    """
    init = inspect.getattr_static(cls, "__init__")
    if init is object.__init__:
        _check_positional([], False, supplied)
        return []
    signature = list(inspect.signature(init).parameters.values())[1:]
    kinds = inspect.Parameter
    positional = [p for p in signature if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    _check_positional([p.name for p in positional], any(p.kind is kinds.VAR_POSITIONAL for p in signature), supplied)
    if any(p.kind is kinds.VAR_KEYWORD for p in signature):
        raise TypeError("__init__ takes **kwargs, so its configuration keys are unknown; name each parameter")
    keyword_only = [p for p in signature if p.kind is kinds.KEYWORD_ONLY]
    if any(p.name == "name" for p in keyword_only):
        raise TypeError("__init__ parameter 'name' is taken: the key `name` holds the plugin's own name; rename it")
    return [_read(p, init) for p in keyword_only]


def config_type(annotation: Any) -> Any:
    """`annotation` in the types that OmegaConf checks: a Literal becomes the type of its values.

    Raises:
        TypeError: naming the types that are allowed.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _PRIMITIVES or (inspect.isclass(annotation) and issubclass(annotation, enum.Enum)):
        return annotation
    if origin is Literal and len({type(value) for value in arguments}) == 1 and type(arguments[0]) in _PRIMITIVES:
        return type(arguments[0])
    if origin in (Union, types.UnionType) and len(arguments) == 2 and type(None) in arguments:
        return Optional[config_type(next(a for a in arguments if a is not type(None)))]  # noqa: UP045 (built at run time)
    if origin is list and arguments:
        return list[config_type(arguments[0])]  # type: ignore[misc]
    if origin is dict and arguments:
        return dict[config_type(arguments[0]), config_type(arguments[1])]  # type: ignore[misc]
    raise TypeError(f"type {type_name(annotation)} cannot be configured; use {_ALLOWED}")


def wrong_choice(annotation: Any, value: Any) -> str | None:
    """Which part of `value` is not among the choices of a Literal in `annotation`, with the choices, or is not what a
    dict may hold; None when fine."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return None if value in arguments else f"{value!r} is not one of {', '.join(map(str, arguments))}"
    if value is None or not arguments:
        return None
    if origin is dict:
        typed = dataclasses.make_dataclass("Typed", [("value", config_type(annotation), MISSING)])
        try:
            OmegaConf.merge(OmegaConf.structured(typed), {"value": value})
        except OmegaConfBaseException as error:
            return f"must be {type_name(annotation)}: {str(error).splitlines()[0]}"
    if origin in (Union, types.UnionType):
        return wrong_choice(next(a for a in arguments if a is not type(None)), value)
    inside = value.values() if origin is dict else value
    return next((wrong for item in inside if (wrong := wrong_choice(arguments[-1], item))), None)


def type_name(annotation: Any) -> str:
    """How an author writes `annotation`: `int`, `list[str]`, `Literal['a', 'b']`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join("None" if a is type(None) else type_name(a) for a in get_args(annotation))
    if inspect.isclass(annotation) and not get_args(annotation):
        return annotation.__name__
    return str(annotation).removeprefix("typing.")


def _check_positional(names: list[str], takes_any: bool, supplied: tuple[str, ...]) -> None:
    if takes_any or tuple(names) == supplied:
        return
    expected = f"takes ({', '.join(('self', *supplied))})"
    extra = [name for name in names if name not in supplied]
    if extra:
        listed = ", ".join(f"'{name}'" for name in extra)
        raise TypeError(f"__init__ {expected} by position, so {listed} must be keyword-only: put `*` before it")
    raise TypeError(f"__init__ must be one that {expected} by position, which the framework passes; got {names}")


def _read(parameter: inspect.Parameter, init: Any) -> Parameter:
    if parameter.annotation is parameter.empty:
        raise TypeError(f"__init__ parameter '{parameter.name}' needs a type annotation: {_ALLOWED}")
    # Evaluated one by one: annotations of positional parameters may name what is imported for type checkers only.
    holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        annotation = typing.get_type_hints(holder, globalns=init.__globals__)[parameter.name]
        config_type(annotation)
    except (NameError, TypeError) as error:
        raise TypeError(f"__init__ parameter '{parameter.name}': {error}") from error
    return Parameter(parameter.name, annotation, MISSING if parameter.default is parameter.empty else parameter.default)
