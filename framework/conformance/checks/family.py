"""The checks of families: tiny models with random weights, against the ones of `transformers`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from framework.conformance.kit.finding import Budget, Check, NotApplicable, Violation
from framework.conformance.kit.tiny_model import TINY, expected, make_model, serve
from framework.models.config import ModelConfig
from framework.models.family import Family
from framework.registry import FAMILIES

TOKENS = "greedy tokens and their log-probabilities equal those of transformers"
DEFAULTS = "a key that a config lacks means what transformers takes for it"
COUNT = "the number of parameters is that of the checkpoint"
TOLERANCE = 2e-4
"""The largest difference of two log-probabilities in float32. It is a hundred times what the order of sums makes."""
SETTINGS = (
    ("whole prompts, no prefix cache", ("attention=sdpa", "engine.prefix_caching=false", "engine.block_size=8")),
    ("chunks of 16 tokens, prefix cache", ("attention=auto", "engine.max_num_batched_tokens=16")),
)


def checks(choice: Mapping[Any, Any], build: Callable[[], Family], budget: Budget) -> list[Check]:
    """The checks of the family that is registered under `choice["name"]`."""
    name = choice["name"]
    numbers = range(len(build().examples))
    return [
        Check(DEFAULTS, lambda: _defaults(name, build())),
        Check(COUNT, lambda: _count(name, build())),
        *(Check(f"{TOKENS} (example {number})", lambda n=number: tokens(name, build(), n)) for number in numbers),  # type: ignore[misc]
    ]


def tokens(name: str, family: Family, number: int, settings: Any = SETTINGS) -> str:
    """Serve one example in each of `settings`, which are overrides of the engine with a name.

    Raises:
        Violation: a token or a log-probability differs, or a cached prefix was not used.
    """
    rule, worst = f"{TOKENS} (example {number})", 0.0
    model = model_of(name, number)
    known: dict[tuple[int, ...], tuple[list[int], list[float]]] = {}  # both settings mostly give the same answers
    with tempfile.TemporaryDirectory() as folder:
        write_model(model, family, Path(folder))
        for words, overrides in settings:
            served = serve(Path(folder), *overrides)
            for index, one in enumerate(served):
                key = (len(one.prompt), *one.prompt, *one.token_ids)
                want, logprobs = known[key] if key in known else known.setdefault(key, expected(model, one))
                error = max(abs(a - b) for a, b in zip(one.logprobs, logprobs, strict=True))
                worst = max(worst, error)
                if one.token_ids != want or error > TOLERANCE:
                    raise Violation(
                        rule,
                        f"{words}: the prompt {index} of {len(one.prompt)} tokens got {one.token_ids}, where "
                        f"transformers finds {want} most likely; the log-probabilities differ by up to {error:.2g}, "
                        f"and {TOLERANCE:g} is allowed\nconfig: {TINY | dict(family.examples[number])}",
                    )
            cached = sum(one.num_cached_tokens for one in served)
            if bool(cached) == ("engine.prefix_caching=false" in overrides):
                raise Violation(rule, f"{words}: {cached} tokens of the prompts came from the prefix cache")
    return f"{len(settings) * len(served)} answers, largest difference {worst:.1e}"


def _defaults(name: str, family: Family) -> str:
    config = _transformers_config(name, {}, _SIZES)
    full = {key: value for key, value in _values(config, family).items() if value is not None}
    sparse = {"architectures": [family.architecture], **_SIZES}
    lacks, has = ModelConfig.from_hf(sparse, max_model_len=16), ModelConfig.from_hf(full, max_model_len=16)
    for field in ModelConfig.__dataclass_fields__:
        if field not in ("dtype", "bos_token_id", "eos_token_ids") and getattr(lacks, field) != getattr(has, field):
            raise Violation(
                DEFAULTS,
                f"{field} is {getattr(lacks, field)!r} for a config that gives sizes only, and "
                f"{getattr(has, field)!r} for the same one with every default of transformers written out",
            )
    return f"{len(full) - len(sparse)} keys left out"


_SIZES = {
    "vocab_size": 128,
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "max_position_embeddings": 256,
}


def _count(name: str, family: Family) -> str:
    found = []
    for number in range(len(family.examples)):
        model = model_of(name, number)
        want = sum(parameter.numel() for parameter in model.parameters())  # a tied one counts once
        count = ModelConfig.from_hf(_values(model.config, family)).num_parameters
        if count != want:
            raise Violation(
                COUNT,
                f"ModelConfig.num_parameters is {count:,}, the checkpoint holds {want:,}; cost models and memory "
                f"sizes rest on it, so a family whose own layers hold more states that in the trait own_parameters",
            )
        found.append(f"{count:,}")
    return ", ".join(found)


@lru_cache(maxsize=4)
def model_of(name: str, number: int) -> Any:
    """The model of `transformers` for one example of a family."""
    example = FAMILIES.get(name).examples[number]
    return make_model(_transformers_config(name, example))


def write_model(model: Any, family: Family, folder: Path) -> None:
    """The files of a checkpoint."""
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(_values(model.config, family)))


def _values(config: Any, family: Family) -> dict[str, Any]:
    """The `config.json` that a checkpoint of the family has."""
    return {**config.to_dict(), "architectures": [family.architecture]}


def _transformers_config(name: str, example: Mapping[str, Any], sizes: Mapping[str, Any] = TINY) -> Any:
    import transformers

    name = FAMILIES.get(name).twin or name
    if name not in transformers.CONFIG_MAPPING:
        raise NotApplicable(f"transformers {transformers.__version__} has no model_type {name} to compare with")
    return transformers.AutoConfig.for_model(name, **{**sizes, **example})
