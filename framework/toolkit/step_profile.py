"""A fitted profile. Calibration writes it, and the cost model `profiled` reads it."""

from __future__ import annotations

import dataclasses
import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framework.interfaces.cost_model import Deployment, ModelShape, StepCost, StepShape
from framework.toolkit.read_file import read_json

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeTable:
    """Decode steps that replay a graph: device seconds for padded rows and positions read, linear in between.

    Beyond the longest contexts that were measured, a position costs what it does at the end of the most rows. Few rows
    end where they do not keep the device busy yet: a line through their last two points would make one row of 100,000
    positions slower than two of them.
    """

    rows: list[int]
    """Ascending"""
    kv_tokens: list[list[int]]
    """For each number of rows, ascending"""
    seconds: list[list[float]]

    def seconds_of(self, rows: int, kv_tokens: int) -> float:
        """Between two measured sizes, both are asked at the same context a row."""
        sizes = self.rows
        index = bisect_left(sizes, rows)
        if index < len(sizes) and sizes[index] == rows:
            return self._at(index, kv_tokens)
        if index == 0:
            return self._at(0, kv_tokens * sizes[0] / rows)
        if index == len(sizes):  # more rows than were measured: as many more seconds as the last two sizes differ by
            index -= 1
            if index == 0:
                return self._at(0, kv_tokens * sizes[0] / rows) * rows / sizes[0]
        low, high = sizes[index - 1], sizes[index]
        at_low, at_high = self._at(index - 1, kv_tokens * low / rows), self._at(index, kv_tokens * high / rows)
        return at_low + (at_high - at_low) * (rows - low) / (high - low)

    def context_s(self, rows: int, kv_tokens: int) -> float:
        """What reading the context adds to a step of so many decode rows."""
        return self.seconds_of(rows, kv_tokens) - self.seconds_of(rows, 0) if rows else 0.0

    def _at(self, index: int, kv_tokens: float) -> float:
        measured, seconds = self.kv_tokens[index], self.seconds[index]
        if kv_tokens > measured[-1]:
            return seconds[-1] + (kv_tokens - measured[-1]) * self._position_s()
        return max(0.0, interpolate(measured, seconds, kv_tokens))

    def _position_s(self) -> float:
        measured, seconds = self.kv_tokens[-1], self.seconds[-1]
        return max(0.0, interpolate(measured, seconds, measured[-1] + 1) - seconds[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearTerms:
    """Steps of any batch: a function of tokens, linear between knots, plus seconds for each unit of other work, for
    decode rows beside chunks, and for each position that the longest chunk walks over."""

    knots: list[int]
    knot_s: list[float]
    row_s: float
    sampled_s: float
    decode_kv_s: float
    prefill_kv_s: float
    pair_s: float
    decode_share: float = 0.0
    """The share that is taken of the decode table's time for the context of decode rows."""
    mixed_s: float = 0.0
    longest_kv_s: float = 0.0

    def seconds_of(self, step: StepShape, table: DecodeTable | None = None) -> float:
        seconds = (
            interpolate(self.knots, self.knot_s, step.padded_tokens)
            + self.row_s * step.num_rows
            + self.sampled_s * step.num_sampled
            + self.decode_kv_s * step.decode_kv_tokens
            + self.prefill_kv_s * step.prefill_kv_tokens
            + self.pair_s * step.prefill_pairs
            + self.longest_kv_s * step.longest_chunk_kv
        )
        num_decode = step.num_decode_rows
        if 0 < num_decode < step.num_rows:
            seconds += self.mixed_s
        if self.decode_share and table is not None:
            seconds += self.decode_share * table.context_s(num_decode, step.decode_kv_tokens)
        return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTerms:
    """Host seconds of a step: constant, a row, a chunk, a token of a chunk, and where chunks join decode rows."""

    step_s: float
    row_s: float
    chunk_s: float = 0.0
    token_s: float = 0.0
    mixed_s: float = 0.0

    def seconds_of(self, step: StepShape) -> float:
        num_decode = step.num_decode_rows
        seconds = self.step_s + self.row_s * step.num_rows
        if num_decode == step.num_rows:
            return seconds
        seconds += self.chunk_s * (step.num_rows - num_decode) + self.token_s * (step.num_tokens - num_decode)
        return seconds + self.mixed_s if num_decode else seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class FitError:
    """Relative errors of predicted device times on points that the fit did not see."""

    regime: str
    num_points: int
    median: float
    p95: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProfile:
    """Times of steps on one device, of one model in one dtype, at one degree of tensor parallelism."""

    hardware: str
    device_name: str
    model_name: str
    model: ModelShape
    dtype: str
    kv_dtype: str
    tp: int
    graph_scope: str
    """What its graphs replay; "" if there are none."""
    decode: DecodeTable | None
    """Times of steps that replay a graph of decode rows."""
    pieces: LinearTerms | None
    """Times of steps that replay graphs between attention calls."""
    mixed: LinearTerms | None = None
    """Times of steps with prompt chunks that replay one graph."""
    mixed_launch: HostTerms | None = None
    """How long the host is busy with the launch of such a step; the device waits, unless it is at an earlier one."""
    eager: LinearTerms
    eager_launch: HostTerms
    """How long the host is busy launching an eager step."""
    graph_launch: HostTerms
    """The same for a graph; the device waits for it, unless it is at an earlier step."""
    new_rows: HostTerms
    """What a graph's launch takes longer if its rows are not those of the step before."""
    host: HostTerms
    """Planning, delivering and everything else between two launches."""
    errors: list[FitError]
    measured: dict[str, str]
    """Where and how: commit, date, versions, configuration."""

    def cost(self, step: StepShape) -> StepCost:
        """The cost of one step.

        Raises:
            ValueError: it replays a graph of a kind that was not measured.
        """
        host_s = self.host.seconds_of(step)
        if step.scope is None:
            return StepCost(self.eager.seconds_of(step), host_s, self.eager_launch.seconds_of(step))
        if step.scope.value != self.graph_scope:
            raise ValueError(
                f"this profile knows graphs of scope {self.graph_scope or 'none'}, not {step.scope.value}; calibrate "
                f"again with a graph strategy of that scope (graph=...): "
                f"{self.command(self.hardware, self.model_name, self.tp, self.dtype, self.kv_dtype)}"
            )
        if step.mixed_graph:
            if self.mixed is None or self.mixed_launch is None:
                raise ValueError(
                    f"this profile knows no graphs with prompt chunks; choose graph=full, or calibrate again with "
                    f"graph=mixed: {self.command(self.hardware, self.model_name, self.tp, self.dtype, self.kv_dtype)}"
                )
            return StepCost(self.mixed.seconds_of(step, self.decode), host_s + self.mixed_launch.seconds_of(step))
        if self.pieces is not None:
            return StepCost(self.pieces.seconds_of(step), host_s, self.graph_launch.seconds_of(step))
        if self.decode is None:
            raise ValueError(
                f"this profile knows no graphs of decode rows; calibrate again with graph=full or mixed: "
                f"{self.command(self.hardware, self.model_name, self.tp, self.dtype, self.kv_dtype)}"
            )
        host_s += self.graph_launch.seconds_of(step)
        if step.new_rows:
            host_s += self.new_rows.seconds_of(step)
        return StepCost(self.decode.seconds_of(step.padded_rows, step.decode_kv_tokens), host_s)

    def check(self, deployment: Deployment, where: str) -> None:
        """Refuse a deployment that was not measured.

        Raises:
            ValueError: naming each difference and the command that makes the right profile.
        """
        mine = {
            "hardware": self.hardware,
            "model": dataclasses.asdict(self.model),
            "dtype": self.dtype,
            "kv_dtype": self.kv_dtype,
            "tp": self.tp,
        }
        asked = {
            "hardware": deployment.hardware.name,
            "model": dataclasses.asdict(deployment.model),
            "dtype": deployment.dtype,
            "kv_dtype": deployment.kv_dtype,
            "tp": deployment.tp,
        }
        wrong = [f"{key} is {mine[key]}, not {asked[key]}" for key in mine if mine[key] != asked[key]]
        if wrong:
            command = self.command_for(deployment)
            raise ValueError(
                f"{where} is a profile of something else: {'; '.join(wrong)}. Make the right one: {command}"
            )

    @classmethod
    def command_for(cls, deployment: Deployment) -> str:
        """What measures a profile of `deployment`."""
        name, dtypes = deployment.hardware.name, (deployment.dtype, deployment.kv_dtype)
        return cls.command(name, deployment.model_name, deployment.tp, *dtypes)

    @staticmethod
    def command(hardware: str, model_name: str, tp: int, dtype: str, kv_dtype: str) -> str:
        """What measures a profile."""
        device = "cpu" if hardware == "cpu" else "cuda"
        more = f" executor.tp={tp}" if tp > 1 else ""
        more += f" executor.dtype={dtype}" if dtype != "bfloat16" else ""
        if kv_dtype != dtype:
            more += f" executor.kv_dtype={'fp8' if kv_dtype == 'float8_e4m3fn' else kv_dtype}"
        return (
            f"python run.py experiment=calibrate model={model_name} model.weights=random executor.device={device}"
            f"{more}, on {hardware}"
        )

    def to_json(self) -> str:
        values = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps(_rounded(values), indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> StepProfile:
        """Raises:
        ValueError: the file is missing or is no profile of this version, naming it.
        """
        try:
            values = read_json(path)
            if values.pop("format") != FORMAT:
                raise ValueError(f"{path} is a profile of another version; calibrate again")
            optional = (("decode", DecodeTable), ("pieces", LinearTerms), ("mixed", LinearTerms))
            for name, kind in (*optional, ("mixed_launch", HostTerms)):
                values[name] = kind(**values[name]) if values.get(name) else None
            for name in ("eager_launch", "graph_launch", "new_rows", "host"):
                values[name] = HostTerms(**values[name])
            values["model"], values["eager"] = ModelShape(**values["model"]), LinearTerms(**values["eager"])
            values["errors"] = [FitError(**error) for error in values["errors"]]
            return cls(**values)
        except FileNotFoundError as error:
            raise ValueError(f"cost_model.path={path}: no such file") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no step profile: {error!r}") from error


def interpolate(xs: Sequence[int], ys: Sequence[float], x: float) -> float:
    """`y` at `x`, linear between the ascending `xs` and beyond them; constant if there is one only."""
    if len(xs) == 1:
        return ys[0]
    index = min(max(bisect_left(xs, x), 1), len(xs) - 1)
    x0, x1, y0, y1 = xs[index - 1], xs[index], ys[index - 1], ys[index]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def _rounded(value: Any) -> Any:
    """Seconds with six significant digits: more were not measured."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
