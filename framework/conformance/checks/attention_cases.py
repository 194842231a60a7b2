"""Random mixed batches for attention backends, and the answer by explicit loops in float64.

A problem runs in two steps through one backend, so that it fits any cache layout: the first computes each row's
context (as a prefill chunk of its own), the second the row's new tokens on top. All memory that was not written is NaN,
and what `BatchLayout` calls undefined is nonsense. A backend that can be captured runs each step, or its decode rows, a
second time, laid out as in a graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st

from framework.interfaces.attention import AttentionBackend, AttentionSpec, BatchLayout, GraphSupport
from framework.registry import ATTENTIONS

_PADDING_ROWS = 2
"""The padding rows of a step that is laid out as in a graph."""


@dataclass(frozen=True)
class Target:
    """A registered backend and the cases to try it on."""

    name: str
    device: str = "cpu"
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    block_sizes: tuple[int, ...] = (1, 2, 3, 7, 16, 33, 64)
    head_sizes: tuple[int, ...] = (16, 40, 64, 128)
    kv_dtype: torch.dtype | None = None
    """The type of the KV cache. None takes that of the model."""
    max_length: int = 300
    max_checked: int = 300
    """How many of the last tokens of a chunk are compared, since the loops of the oracle are slow."""


@dataclass(frozen=True)
class Problem:
    """Shapes of a batch; tensors follow from `seed`. `rows` are (context, new tokens), decode rows first."""

    target: Target
    dtype: torch.dtype
    num_heads: int
    num_kv_heads: int
    head_size: int
    block_size: int
    rows: tuple[tuple[int, int], ...]
    num_padding: int
    seed: int
    window: int | None = None
    softcap: float | None = None

    def describe(self) -> str:
        """The shapes in words."""
        rows = ", ".join(f"{new} new after {context} cached" for context, new in self.rows)
        return (
            f"{self.dtype} on {self.target.device}, {self.num_heads} query and {self.num_kv_heads} KV heads of size "
            f"{self.head_size}, blocks of {self.block_size} tokens, {self.num_padding} padding tokens, seed {self.seed}"
            f"\nrows (tokens): {rows}" + f"\nwindow {self.window}, soft cap {self.softcap}" * (self.spec != self._plain)
        )

    @property
    def _plain(self) -> AttentionSpec:
        return dataclasses.replace(self.spec, windows=(), softcap=None)

    @property
    def spec(self) -> AttentionSpec:
        return AttentionSpec(
            device=torch.device(self.target.device),
            dtype=self.dtype,
            kv_dtype=self.target.kv_dtype or self.dtype,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_size=self.head_size,
            block_size=self.block_size,
            num_layers=2,
            scale=1.3 * self.head_size**-0.5,  # not the usual one, so that ignoring it shows
            max_num_seqs=len(self.rows) + _PADDING_ROWS,
            max_num_batched_tokens=sum(map(sum, self.rows)) + self.num_padding,
            max_model_len=max(map(sum, self.rows)),
            windows=() if self.window is None else (None, self.window),  # of two layers, of which the second is tried
            softcap=self.softcap,
        )


@st.composite
def problems(draw: st.DrawFn, target: Target) -> Problem:
    """Decode rows and prefill chunks, with and without context, of 1 to `target.max_length` tokens."""
    length = st.one_of(st.integers(1, 20), st.integers(1, target.max_length - 1))
    decode_rows = draw(st.lists(st.tuples(length | st.just(0), st.just(1)), max_size=6))
    chunks = draw(st.lists(st.tuples(length | st.just(0), st.integers(2, 40)), max_size=3, min_size=not decode_rows))
    num_kv_heads = draw(st.integers(1, 3))
    backend = ATTENTIONS.get(target.name)
    window = st.none() | st.integers(1, 100) if backend.supports_windows else st.none()
    softcap = st.none() | st.just(0.7) if backend.supports_softcap else st.none()
    return Problem(
        target=target,
        dtype=draw(st.sampled_from(target.dtypes)),
        num_heads=num_kv_heads * draw(st.integers(1, 8)),
        num_kv_heads=num_kv_heads,
        head_size=draw(st.sampled_from(target.head_sizes)),
        block_size=draw(st.sampled_from(target.block_sizes)),
        rows=(*decode_rows, *chunks),
        num_padding=draw(st.integers(0, 3)),
        seed=draw(st.integers(0, 2**32 - 1)),
        window=draw(window),
        softcap=draw(softcap),
    )


def check(build: Callable[[AttentionSpec], AttentionBackend], problem: Problem) -> float | None:
    """Run both steps and compare every output with the oracle's. `build` may be a backend class.

    Returns the largest deviation of a row's output, as ||got - exact|| / ||exact||, if the backend says that it is not
    exact; else None.

    Raises:
        AssertionError: an output differs and the backend says that it is exact, or an output has another shape or dtype
            or is not finite.
    """
    backend = build(problem.spec)
    deviations = None if backend.exact else [0.0]
    generator = torch.Generator().manual_seed(problem.seed)
    q, k, v = ([_values(problem, row, heads, generator) for row in problem.rows] for heads in _head_counts(problem))
    num_blocks_R = [-(-sum(row) // problem.block_size) for row in problem.rows]
    # The last block is handed out too: a write to slot -1 that counts from the end must not go unnoticed.
    blocks = torch.randperm(sum(num_blocks_R) + 2, generator=generator)
    tables = blocks[: sum(num_blocks_R)].split(num_blocks_R)
    shape = backend.kv_cache_shape(len(blocks))
    cache = torch.full(shape, torch.nan, dtype=problem.spec.kv_dtype, device=problem.target.device)

    contexts = [(row, 0, context) for row, (context, _) in enumerate(problem.rows) if context]
    contexts.sort(key=lambda part: part[2] != 1)  # decode rows first
    news = [(row, context, context + new) for row, (context, new) in enumerate(problem.rows)]
    for parts in (contexts, news):
        if not parts:
            continue
        steps = [(parts, layout(problem, tables, parts))]
        if backend.graph_support >= GraphSupport.MIXED:
            steps.append((parts, layout(problem, tables, parts, captured=True)))
        decode = [part for part in parts if part[2] - part[1] == 1]
        if decode and backend.graph_support >= GraphSupport.DECODE:
            steps.append((decode, decode_layout(problem, tables, decode)))
        for rows, batch in steps:
            q_TNH, k_TMH, v_TMH = (_step_tensor(problem, x, rows) for x in (q, k, v))
            out_TNH = backend.forward(1, q_TNH, k_TMH, v_TMH, cache, backend.plan(batch))
            assert out_TNH.shape == q_TNH.shape, f"shape {tuple(out_TNH.shape)}, not {tuple(q_TNH.shape)}"
            assert out_TNH.dtype == problem.dtype, f"{out_TNH.dtype}, not {problem.dtype}"
            _compare(problem, out_TNH, q, k, v, rows, deviations)
    return None if deviations is None else max(deviations)


def layout(
    problem: Problem,
    tables: Sequence[torch.Tensor],
    parts: Sequence[tuple[int, int, int]],
    *,
    captured: bool = False,
) -> BatchLayout:
    """The step that computes tokens `start:stop` of each (row, start, stop) of `parts`.

    Args:
        captured: as in a graph that replays for any rows, of which some are padding.
    """
    size, device = problem.block_size, problem.target.device
    starts, slots, positions = [0], list[int](), list[int]()
    junk = torch.iinfo(torch.int32).max
    num_rows = len(parts) + (_PADDING_ROWS if captured else 0)
    table_RB = torch.full((num_rows, max(map(len, tables)) + 2), junk, dtype=torch.int32)
    for index, (row, start, stop) in enumerate(parts):
        num_blocks = -(-stop // size)
        table_RB[index, :num_blocks] = tables[row][:num_blocks]
        starts.append(starts[-1] + stop - start)
        slots += [int(tables[row][position // size]) * size + position % size for position in range(start, stop)]
        positions += range(start, stop)
    lengths = [stop for _, _, stop in parts]
    num_tokens = starts[-1]
    if captured:
        starts, lengths = starts + [num_tokens] * _PADDING_ROWS, lengths + [0] * _PADDING_ROWS
    return BatchLayout(
        num_rows=num_rows,
        num_tokens=num_tokens + (problem.num_padding if captured else 0),
        num_decode_rows=0 if captured else sum(stop - start == 1 for _, start, stop in parts),
        query_start_R1=torch.tensor(starts, dtype=torch.int32, device=device),
        seq_lens_R=torch.tensor(lengths, dtype=torch.int32, device=device),
        block_table_RB=table_RB.to(device),
        slot_mapping_T=torch.tensor(slots + [-1] * problem.num_padding, device=device),
        positions_T=torch.tensor(positions + [0] * problem.num_padding, device=device),
        query_start_host=[] if captured else starts,
        seq_lens_host=[] if captured else lengths,
        kinds_vary=captured,
    )


def decode_layout(
    problem: Problem, tables: Sequence[torch.Tensor], parts: Sequence[tuple[int, int, int]]
) -> BatchLayout:
    """The layout of a graph of decode rows: lengths are on the device only, and padding tokens are rows of length 0."""
    batch, padding = layout(problem, tables, parts), problem.num_padding
    num_rows = len(parts) + padding
    pad, junk = torch.nn.functional.pad, torch.iinfo(torch.int32).max
    return dataclasses.replace(
        batch,
        num_rows=num_rows,
        num_tokens=num_rows,
        num_decode_rows=num_rows,
        query_start_R1=torch.arange(num_rows + 1, dtype=torch.int32, device=problem.target.device),
        seq_lens_R=pad(batch.seq_lens_R, (0, padding)),
        block_table_RB=pad(batch.block_table_RB, (0, 0, 0, padding), value=junk),
        query_start_host=[],
        seq_lens_host=[],
    )


def oracle(
    q_CNH: np.ndarray,
    k_LMH: np.ndarray,
    v_LMH: np.ndarray,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> np.ndarray:
    """Causal attention of the last C of L tokens, one token and one head at a time, in float64."""
    num_new, num_heads, _ = q_CNH.shape
    length, num_kv_heads, _ = k_LMH.shape
    out_CNH = np.zeros(q_CNH.shape)
    for token in range(num_new):
        end = length - num_new + token + 1
        visible = slice(0 if window is None else max(0, end - window), end)
        for head in range(num_heads):
            kv_head = head // (num_heads // num_kv_heads)
            scores = k_LMH[visible, kv_head] @ q_CNH[token, head] * scale
            if softcap is not None:
                scores = softcap * np.tanh(scores / softcap)
            weights = np.exp(scores - scores.max())
            out_CNH[token, head] = weights @ v_LMH[visible, kv_head] / weights.sum()
    return out_CNH


def _head_counts(problem: Problem) -> tuple[int, int, int]:
    return problem.num_heads, problem.num_kv_heads, problem.num_kv_heads


def _values(problem: Problem, row: tuple[int, int], num_heads: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(sum(row), num_heads, problem.head_size, generator=generator).to(problem.dtype)


def _step_tensor(problem: Problem, x: list[torch.Tensor], parts: Sequence[tuple[int, int, int]]) -> torch.Tensor:
    """A step's q, k or v. Like the slices of a fused projection it is not contiguous; padding tokens are NaN."""
    x_THH = torch.cat([x[row][start:stop] for row, start, stop in parts])
    num_tokens, num_heads, _ = x_THH.shape
    wide = torch.full(
        (num_tokens + problem.num_padding, num_heads + 1, problem.head_size), torch.nan, dtype=x_THH.dtype
    )
    wide[:num_tokens, 1:] = x_THH
    return wide.to(problem.target.device)[:, 1:]


def _compare(
    problem: Problem,
    out_TNH: torch.Tensor,
    q: list[torch.Tensor],
    k: list[torch.Tensor],
    v: list[torch.Tensor],
    parts: Sequence[tuple[int, int, int]],
    deviations: list[float] | None,
) -> None:
    tolerance = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[problem.dtype]
    end = 0
    for row, start, stop in parts:
        end += stop - start
        num_checked = min(stop - start, problem.target.max_checked)
        q_CNH = q[row][stop - num_checked : stop].double().numpy()
        k_LMH, v_LMH = (x[row][:stop].to(problem.spec.kv_dtype).double().numpy() for x in (k, v))
        want = oracle(q_CNH, k_LMH, v_LMH, problem.spec.scale, problem.window, problem.softcap)
        got = out_TNH[end - num_checked : end].double().cpu().numpy()
        if deviations is not None:
            assert np.isfinite(got).all(), f"row {row}, {start}:{stop}: numbers that are not finite"
            deviations.append(float(np.linalg.norm(got - want) / np.linalg.norm(want)))
            continue
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=f"row {row}, {start}:{stop}")
