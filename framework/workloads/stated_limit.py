"""What the requests of a workload state as `max_tokens`, which says nothing of how long their answers will be."""

from __future__ import annotations

from collections.abc import Sequence

from framework.interfaces.sampling_params import MAX_INT
from framework.interfaces.workload import TimedRequest, WorkloadContext


def check_max_tokens(max_tokens: int | None) -> None:
    """Refuse a limit that no request can state."""
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"workload.max_tokens={max_tokens} must be at least 1, or null for the model's limit")


def check_max_concurrency(max_concurrency: int | None) -> None:
    """Refuse a closed load without a place for a request."""
    if max_concurrency is not None and not 1 <= max_concurrency <= 1_000_000:
        raise ValueError(
            f"workload.max_concurrency={max_concurrency} must be in [1, 1000000], or null to send each request when it "
            "arrives"
        )


def stated_limit(max_tokens: int | None, context: WorkloadContext) -> int:
    """The limit of every request: `max_tokens`, or the model's where its users state none."""
    return context.max_model_len if max_tokens is None else max_tokens


def about_lengths(requests: Sequence[TimedRequest]) -> dict[str, object]:
    """For the record: whether policies can read output lengths from `max_tokens`, and how many answers it cuts short.

    `output_lengths` is `hidden` where every request has a true length, `max_tokens` where none has: a simulation, and
    `ignore_eos`, then runs to what the sender states and policies see.
    """
    num_hidden = sum(request.output_tokens is not None for request in requests)
    num_cut = sum((request.output_tokens or 0) > (request.params.max_tokens or MAX_INT) for request in requests)
    about: dict[str, object] = {
        "output_lengths": "hidden" if num_hidden == len(requests) else "mixed" if num_hidden else "max_tokens"
    }
    if num_cut:
        about["cut_by_max_tokens"] = num_cut
    return about
