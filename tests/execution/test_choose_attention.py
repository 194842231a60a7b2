"""A refused backend is named once, with the reason and the alternative."""

from __future__ import annotations

import pytest
import torch

from framework.config.compose import compose
from framework.execution.rank.choices import choose
from framework.interfaces.errors import IncompatibleError


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device would be chosen")
def test_a_refusal_names_the_backend_once() -> None:
    cfg = compose(["model=tiny", "workload=synthetic", "attention=flash"])
    with pytest.raises(
        IncompatibleError, match=r"^attention=flash runs on CUDA GPUs, not on cpu; choose attention=sdpa$"
    ):
        choose(cfg)
