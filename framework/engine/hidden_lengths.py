"""True output lengths, which a workload knows and a policy must not: kept where no request, queue or plan leads to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from framework.engine.request import Request
from framework.interfaces.executor import Admission


class HiddenLengths:
    """Ends requests at lengths that nobody can read from them.

    A request shows the limit that its sender stated (`max_total_tokens`). Once the last token of its true length is in
    flight, that limit is lowered to it: the plan adds no further row, and the delivery ends the request, as they do at
    any limit. So a policy learns of an end one step before it comes, as of one by `max_tokens`.

    A request gains at most one token per step, so one that lacks n is not looked at for n steps: the cost is per
    admission, not per row.
    """

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}
        """By request: prompt and output tokens at its end."""
        self._due: dict[int, list[int]] = {}
        """By step: the requests that may get their last token in it."""
        self._due_of: dict[int, int] = {}

    def add(self, request: Request, output_tokens: int | None) -> None:
        """`request` produces that many tokens, unless its stated limit ends it before."""
        if output_tokens is not None and request.num_prompt + output_tokens < request.max_total_tokens:
            self._ends[request.id] = request.num_prompt + output_tokens

    def output_tokens(self, request: Request) -> int:
        """What `request` will have produced at its end, for an oracle; the stated limit where nothing is hidden."""
        return self._ends.get(request.id, request.max_total_tokens) - request.num_prompt

    def forget(self, request: Request) -> None:
        """It has ended."""
        if self._ends.pop(request.id, None) is not None:
            self._due_of.pop(request.id, None)

    def restart(self) -> None:
        """Steps in flight were dropped: every request will be admitted anew."""
        self._due.clear()
        self._due_of.clear()

    def submitted(self, step: int, admissions: Iterable[Admission], live: Mapping[int, Request]) -> None:
        """Step `step`, which is sealed, admits these. Call it for every step."""
        if not self._ends:
            return
        for admission in admissions:
            if admission.request_id in self._ends:
                self._look(live[admission.request_id], step)
        for request_id in self._due.pop(step, ()):
            request = live.get(request_id)
            if request is not None and self._due_of.get(request_id) == step:
                self._look(request, step)

    def _look(self, request: Request, step: int) -> None:
        missing = self._ends[request.id] - request.num_tokens
        if missing <= 0:
            request.max_total_tokens = self._ends[request.id]
        elif request.running:
            self._due_of[request.id] = step + missing
            self._due.setdefault(step + missing, []).append(request.id)
