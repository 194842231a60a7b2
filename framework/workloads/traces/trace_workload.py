"""What every workload from a trace file shares: the options, the arrival times, rows to requests."""

from __future__ import annotations

import math
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np

from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest, Workload, WorkloadContext
from framework.workloads.arrivals import random_arrivals_s
from framework.workloads.stated_limit import check_max_concurrency, check_max_tokens, stated_limit
from framework.workloads.traces.trace_row import TraceRow
from framework.workloads.traces.trace_rows import read_trace

Arrival = Literal["trace", "all", "poisson", "gamma"]
OnBadLine = Literal["error", "skip"]


class TraceWorkload(Workload):
    """Requests with the lengths, times and shared prefixes of a trace. Subclasses know one file format.

    Requests keep the order of the file, also those that share a timestamp; the first one arrives at 0.
    """

    source: ClassVar[str]
    """Where people get the public trace, for the message without a path."""
    has_header: ClassVar[bool] = False

    def __init__(
        self,
        *,
        path: str | None = None,
        num_requests: int | None = None,
        limit: int | None = None,
        from_s: float = 0.0,
        to_s: float | None = None,
        loop: bool = False,
        time_scale: float = 1.0,
        arrival: Arrival = "trace",
        rate_per_s: float | None = None,
        max_concurrency: int | None = None,
        burstiness_cv: float = 1.0,
        on_bad_line: OnBadLine = "error",
        max_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> None:
        """
        Args:
            path: the file; one whose name ends in .gz, .zst or .bz2 is unpacked as it is read.
            num_requests: number of requests in all; it is an error if the file has fewer. None takes all that it has.
            limit: use the first this many requests of the file, or of its window; None for all.
            from_s, to_s: use the window of the file from `from_s` to before `to_s`, in seconds of the file's own time
                from its first request on. The first request of the window arrives at 0. to_s=None is the end.
            loop: start over at the end of the file until `num_requests` are drawn. Prompts of another pass have keys of
                their own, so that they share prefixes among themselves as the file says, and none with earlier passes.
            time_scale: multiplies the trace's times: 0.5 replays it twice as fast.
            arrival: trace (the file's times), all (at 0), poisson or gamma (random, lengths and order as in the file).
            rate_per_s: mean requests per second; None for that of the trace. With arrival=trace the trace's times are
                stretched or compressed to it, so that bursts stay bursts.
            max_concurrency: requests in the engine at once; a further one is sent when one of them has ended, and its
                times count from there (a closed load). None sends each request when it arrives.
            burstiness_cv: gamma only: coefficient of variation of the gaps; 1 is poisson, above 1 comes in bursts.
            on_bad_line: error ends the run with file and line; skip leaves the line out and counts it in the record.
            max_tokens: the limit that requests state where the file names none; None for the model's. The file's output
                lengths are the true ones, which policies do not see.
            temperature: 0 for greedy.
            seed: the seed of random arrivals and, if the executor needs tokens, of prompts; None takes the run's seed.
        """
        if not path or not Path(path).expanduser().is_file():
            what = f"workload.path={path} is no file" if path else "workload.path is not set"
            raise ValueError(f"{what}; pass workload.path=FILE. Public traces: {self.source}")
        _check(num_requests is None or num_requests >= 1, "num_requests", num_requests, "at least 1, or null for all")
        _check(limit is None or limit >= 1, "limit", limit, "at least 1, or null for the whole file")
        _check(0 <= from_s < math.inf, "from_s", from_s, "at least 0")
        _check(to_s is None or from_s < to_s < math.inf, "to_s", to_s, f"above from_s={from_s}, or null for the end")
        _check(
            not loop or num_requests is not None, "loop", loop, "false unless workload.num_requests says when to end"
        )
        _check(0 < time_scale < math.inf, "time_scale", time_scale, "above 0")
        _check(arrival in get_args(Arrival), "arrival", arrival, f"one of {', '.join(get_args(Arrival))}")
        _check(rate_per_s is None or 0 < rate_per_s < math.inf, "rate_per_s", rate_per_s, "above 0, or null")
        _check(
            rate_per_s is None or arrival != "all", "rate_per_s", rate_per_s, "null with arrival=all, or set poisson"
        )
        timed = arrival != "all" and rate_per_s is None
        _check(time_scale == 1 or timed, "time_scale", time_scale, "1 where the trace's times are not used")
        check_max_concurrency(max_concurrency)
        _check(0 < burstiness_cv < math.inf, "burstiness_cv", burstiness_cv, "above 0")
        _check(burstiness_cv == 1 or arrival == "gamma", "burstiness_cv", burstiness_cv, "1, or set arrival=gamma")
        _check(on_bad_line in get_args(OnBadLine), "on_bad_line", on_bad_line, "one of error, skip")
        check_max_tokens(max_tokens)
        _check(seed is None or seed >= 0, "seed", seed, "at least 0, or null for the run's seed")
        SamplingParams(temperature=temperature)  # a bad temperature raises here, before a model is loaded
        self.path = Path(path).expanduser()
        self.num_requests, self.limit, self.loop = num_requests, limit, loop
        self.from_s, self.to_s = from_s, math.inf if to_s is None else to_s
        self.time_scale, self.arrival, self.rate_per_s, self.burstiness_cv = (
            time_scale,
            arrival,
            rate_per_s,
            burstiness_cv,
        )
        self.skip_bad, self.max_tokens = on_bad_line == "skip", max_tokens
        self.temperature, self.seed = temperature, seed

    @abstractmethod
    def parser(self, header: str) -> Callable[[str], TraceRow]:
        """What makes a row of a line; either raises ValueError without file and line, which are put in front.

        Args:
            header: the first line if the format `has_header`, else empty.
        """

    def requests(self, context: WorkloadContext) -> Iterator[TimedRequest]:
        limits = [n for n in (self.limit, None if self.loop else self.num_requests) if n is not None]
        read = read_trace(
            self.path,
            self.parser,
            has_header=self.has_header,
            limit=min(limits, default=None),
            skip_bad=self.skip_bad,
            max_model_len=context.max_model_len,
            from_s=self.from_s,
            to_s=self.to_s,
        )
        rows = read.rows
        count = len(rows) if self.num_requests is None else self.num_requests
        if count > len(rows) and not self.loop:
            skipped = f", {read.num_skipped} bad lines left out" if read.num_skipped else ""
            raise ValueError(
                f"workload.num_requests={count}, but {self.path} has {len(rows)} requests within "
                f"workload.limit={'null' if self.limit is None else self.limit}{skipped}; lower it, or set "
                f"workload.loop=true to start over at the end"
            )
        self.effective = {
            "trace_sha256": read.sha256,
            "trace_requests": len(rows),
            "passes": -(-count // len(rows)),
            "bad_lines_skipped": read.num_skipped,
        }
        if read.num_skipped:
            self.effective["first_bad_line"] = read.first_skipped
            self.left_out = (
                f"{read.num_skipped} of {read.num_skipped + len(rows)} lines were left out "
                f"(workload.on_bad_line=skip), the first because: {read.first_skipped}"
            )
        arrivals_s = self._arrivals_s(np.array([row.time_s for row in rows]), count, self.seed_for(context))
        keys_of_pass = _FreshKeys(rows)
        params: dict[int, SamplingParams] = {}
        limit_of_others = stated_limit(self.max_tokens, context)
        for i, arrival_s in enumerate(arrivals_s.tolist()):
            number, place = divmod(i, len(rows))
            row = rows[place]
            limit = row.max_tokens or limit_of_others
            if limit not in params:
                params[limit] = SamplingParams(temperature=self.temperature, max_tokens=limit, ignore_eos=True)
            yield TimedRequest(
                arrival_s=arrival_s,
                num_prompt_tokens=row.prompt_tokens,
                prompt_keys=keys_of_pass(number, row.keys),
                key_tokens=row.key_tokens,
                params=params[limit],
                output_tokens=row.output_tokens,
                client=row.client,
                category=row.category,
                session=row.session,
                priority=row.priority,
                deadline_s=arrival_s + row.objectives["ttft_slo_s"] if "ttft_slo_s" in row.objectives else None,
                **row.objectives,
                origin=f"{self.path.name}:{row.line}",
            )

    def _arrivals_s(self, times_s: np.ndarray, count: int, seed: int) -> np.ndarray:
        if self.arrival == "all":
            return np.zeros(count)
        times_s = (times_s - times_s[0]) * self.time_scale
        mean_gap_s = float(times_s[-1]) / max(1, len(times_s) - 1)
        if self.arrival == "trace":
            if self.rate_per_s is not None:
                if mean_gap_s == 0:
                    raise ValueError(
                        f"workload.rate_per_s={self.rate_per_s:g}: all requests of {self.path} have one time, which no "
                        "scale makes a rate; set workload.arrival=poisson"
                    )
                times_s, mean_gap_s = times_s / (mean_gap_s * self.rate_per_s), 1 / self.rate_per_s
            length_s = float(times_s[-1])
            passes = np.arange(-(-count // len(times_s)))[:, None]
            repeated: np.ndarray = (times_s + passes * (length_s + mean_gap_s)).ravel()[:count]
            return repeated
        rate_per_s = self.rate_per_s
        if rate_per_s is None:
            if mean_gap_s == 0:
                raise ValueError(
                    f"workload.rate_per_s=null: all requests of {self.path} have one time, which gives no rate; set it"
                )
            rate_per_s = 1 / mean_gap_s
        rng = np.random.Generator(np.random.PCG64(seed))
        return random_arrivals_s(rng, count, rate_per_s=rate_per_s, burstiness_cv=self.burstiness_cv)


class _FreshKeys:
    """The keys of a row in each pass over the file: the file's own in the first one, new ones in every later one."""

    def __init__(self, rows: list[TraceRow]) -> None:
        self._rows = rows
        self._places: dict[int, int] = {}

    def __call__(self, number: int, keys: array[int]) -> array[int]:
        if number == 0 or not keys:
            return keys
        if not self._places:
            for row in self._rows:
                for key in row.keys:
                    self._places.setdefault(key, len(self._places))
            self._first = max(self._places) + 1
        offset = self._first + (number - 1) * len(self._places)
        return array("q", [offset + self._places[key] for key in keys])


def _check(holds: bool, name: str, value: object, limit: str) -> None:
    if not holds:
        raise ValueError(f"workload.{name}={value!r} must be {limit}")
