"""Parity of every family with `transformers` in float32: a row per example of `framework check family=...`.

python experiments/models/parity.py
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers

from framework.conformance.checks.family import SETTINGS, model_of, write_model
from framework.conformance.kit.tiny_model import expected, serve
from framework.registry import FAMILIES
from framework.registry.discovery import discover


def main() -> None:
    """Print the table of README.md."""
    torch.set_num_threads(1)
    discover()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    print(
        "| family | example: what it adds to the tiny config | answers | tokens | largest error of a log-probability |"
    )
    print("| --- | --- | --- | --- | --- |")
    for name in FAMILIES.names():
        family = FAMILIES.get(name)()
        for number, example in enumerate(family.examples):
            model = model_of(name, number)
            worst, equal, answers = 0.0, 0, 0
            with TemporaryDirectory() as folder:
                write_model(model, family, Path(folder))
                for _, overrides in SETTINGS:
                    for one in serve(Path(folder), *overrides):
                        want, logprobs = expected(model, one)
                        worst = max(worst, *(abs(a - b) for a, b in zip(one.logprobs, logprobs, strict=True)))
                        answers, equal = answers + 1, equal + (one.token_ids == want)
            keys = ", ".join(f"{key}={_short(value)}" for key, value in example.items()) or "nothing"
            print(f"| `{name}` | {keys} | {answers} | {equal} equal | {worst:.1e} |", flush=True)


def _short(value: object) -> object:
    return value.get("rope_type") or value.get("type") if isinstance(value, dict) else value


if __name__ == "__main__":
    main()
