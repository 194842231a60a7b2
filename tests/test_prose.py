"""The language of comments, docstrings and documents, as far as a pattern can check it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    path
    for folder in ("framework", "plugins", "docs", "conf", "experiments")
    for suffix in ("*.py", "*.md", "*.yaml")
    for path in sorted((ROOT / folder).rglob(suffix))
] + [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]

COUNTED = (
    "all-reduces|blocks|bytes|calls|cells|columns|entries|events|GPUs|hits|ids|kernels|keys|launches|layers|letters|messages|ms|"
    "products|programs|pushes|requests|rows|seconds|stages|steps|sums|tasks|tokens|warps"
)
UNIT = (
    "add|batch|block|bucket|byte|category|cell|chunk|choice|client|column|decision|device|eviction|field|file|frequency|gpu|"
    "graph|group|head|hit|host|inch|kind|layer|line|list|lookup|machine|message|metric|model|multiprocessor|node|pair|part|policy|"
    "position|process|program|prompt|push|rank|record|replica|request|round|row|rule|scheduler|second|seed|session|size|"
    "slot|step|sweep|tile|token|trial|turn|value|worker"
)
ONE = (
    "call|candidate|chunk|colour|column|copy|effect|entry|file|id|index|key|line|name|object|observation|one|panel|"
    "point|process|program|queue|row|run|score|table|task|token|value"
)
PER = re.compile(
    rf"(?<!many )(?<!much )(?<!which )\b(?:{COUNTED}) an? (?:{UNIT})\b(?!-)"  # 12 ms a step
    rf"|\b(?:once|times|O\([^)]*\)) an? (?:{UNIT})\b(?! (?:has|is|was|had|can)\b)"  # once a step, O(1) a hit
    rf"|\b(?:a|an|one) (?:\w+ )?(?:{ONE}) an? (?:{UNIT})\b(?! time)"  # a row a request
    rf"|\bone an? (?:{UNIT})\b",  # pass one a prompt
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("12 ms a step", True),
        ("a row a request", True),
        ("one token id a row", True),
        ("a process a cell", True),
        ("O(log n) an eviction", True),
        ("called once a step", True),
        ("12 ms per step", False),
        ("how many tokens a step has", False),
        ("it runs a sweep", False),
    ],
)
def test_pattern(text: str, found: bool) -> None:
    assert bool(PER.search(text)) is found


def test_rates_say_per() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in PER.finditer(line)
    ]
    assert not found, 'write "per": "12 ms per step", "one row per request"\n' + "\n".join(found)
