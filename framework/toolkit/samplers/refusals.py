"""The words in which a sampler refuses the parameters that it does not implement."""

from __future__ import annotations

from framework.interfaces.sampling_params import SamplingParams


def refusal(sampler: str, params: SamplingParams, *, honours: tuple[str, ...] = ()) -> str | None:
    """Why `sampler`, which knows the temperature and the filters in `honours`, can't honour `params`; None if it can.

    A filter on a greedy row changes nothing, whatever it is, so it is never refused there.
    """
    filters = {"top_k": params.top_k > 0, "top_p": params.top_p < 1, "min_p": params.min_p > 0}
    asked = [name for name, used in filters.items() if used and name not in honours and not params.greedy]
    asked += ["penalties"] * params.has_penalties + ["logit_bias"] * bool(params.logit_bias)
    return f"sampler={sampler} has no {', '.join(asked)}; choose sampler=full" if asked else None
