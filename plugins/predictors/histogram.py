"""The lengths of the last answers, as they are: no shape is assumed."""

from bisect import insort
from collections import deque
from typing import Literal

from framework.interfaces.predictor import LengthDistribution, Predictor
from framework.interfaces.scheduler import RequestView
from framework.registry import PREDICTORS
from framework.toolkit.predictors.lengths import LogNormalLength, SampledLength


@PREDICTORS.register("histogram")
class Histogram(Predictor):
    """The last `window` lengths of requests alike, each as likely as any other: the history of "Past-Future Scheduler
    for LLM Serving under SLA Guarantees" (ASPLOS'25), which has one for all requests.

    Requests with few ended ones of their own are predicted from all. Until `least` requests have ended in all, a
    log-normal length stands in.

    Args:
        by: what makes requests alike: `category`, `client`, `session`, or `all`.
        window: how many lengths are remembered of requests alike.
        least: how many lengths make a sample.
        initial_tokens: the median of the log-normal length.
        initial_sigma: standard deviation of the logarithm of that length, at most 10.
    """

    def __init__(
        self,
        *,
        by: Literal["all", "category", "client", "session"] = "category",
        window: int = 1000,
        least: int = 10,
        initial_tokens: float = 256.0,
        initial_sigma: float = 1.0,
    ) -> None:
        if by not in ("all", "category", "client", "session"):
            raise ValueError(f"predictor.by={by!r} must be all, category, client or session")
        for key, value, at_least in (("window", window, 1), ("least", least, 1)):
            if value < at_least:
                raise ValueError(f"predictor.{key}={value} must be at least {at_least}")
        if least > window:
            raise ValueError(f"predictor.least={least} must be at most predictor.window={window}")
        for name, number in (("initial_tokens", initial_tokens), ("initial_sigma", initial_sigma)):
            if not 0 < number < float("inf"):
                raise ValueError(f"predictor.{name}={number} must be a finite number above 0")
        if initial_sigma > 10:
            raise ValueError(f"predictor.initial_sigma={initial_sigma} must be at most 10; lengths vary by exp of it")
        self.by, self.window, self.least = by, window, least
        self._before = LogNormalLength(initial_tokens, initial_sigma)
        self._samples: dict[str, _Sample] = {}
        self._all = _Sample(window)

    def predict(self, request: RequestView) -> LengthDistribution:
        own = self._samples.get(self._kind(request), self._all)
        for sample in (own, self._all):
            if len(sample.lengths) >= self.least:
                return sample.distribution()
        return self._before

    def on_finish(self, request: RequestView) -> None:
        self._all.add(request.num_output)
        if self.by != "all":
            self._samples.setdefault(self._kind(request), _Sample(self.window)).add(request.num_output)

    def _kind(self, request: RequestView) -> str:
        return "" if self.by == "all" else str(getattr(request.spec, self.by))


class _Sample:
    def __init__(self, window: int) -> None:
        self.lengths: deque[int] = deque(maxlen=window)
        self._sorted: list[int] = []
        self._made: SampledLength | None = None

    def add(self, length: int) -> None:
        if len(self.lengths) == self.lengths.maxlen:
            self._sorted.remove(self.lengths[0])
        self.lengths.append(length)
        insort(self._sorted, length)
        self._made = None

    def distribution(self) -> SampledLength:
        """Made anew only where lengths have come since: distributions that are in use keep their own."""
        if self._made is None:
            self._made = SampledLength(tuple(self._sorted))
        return self._made
