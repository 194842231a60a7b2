"""Products and look-ups with weights in the blocks of a GGUF file; see src/blocks.cpp.

The kernel rounds activations to 16 bits with a scale for every 32 inputs, so that an element is off by at most 1/65534
of the largest of its 32. Products and their sums within a block are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from framework.execution.kernels.cpu import native
from framework.models.layers.quantized import QuantizedRows


class BlockLinear:
    """`y = x W^T + b` for a weight that lies in blocks: the rows of `pieces`, one piece after the other.

    The blocks are laid out for the kernel once, which keeps their size, and the pieces are not needed afterwards.

    Attributes:
        num_bytes: the bytes that a product reads of the weight.
    """

    def __init__(self, pieces: Sequence[QuantizedRows], bias_O: Tensor | None) -> None:
        library = native.library()
        self._in_features, self._out_features = pieces[0].columns, sum(piece.rows for piece in pieces)
        self._bias_O = None if bias_O is None else bias_O.detach().float().contiguous()
        self._bias_pointer = None if self._bias_O is None else self._bias_O.data_ptr()
        self._panels = []
        table = []
        for piece in pieces:
            assert piece.columns == self._in_features
            size = library.servelab_block_panel_bytes(piece.kind, piece.rows, piece.columns)
            assert size or not piece.rows, f"{piece.columns} columns of kind {piece.kind} have no panels"
            panels = torch.empty(size, dtype=torch.uint8)
            library.servelab_pack_blocks(
                piece.kind,
                piece.blocks.ctypes.data,
                piece.blocks.strides[0],
                panels.data_ptr(),
                piece.rows,
                piece.columns,
                torch.get_num_threads(),
            )
            self._panels.append(panels)
            table.append([piece.kind, piece.rows, panels.data_ptr()])
        self.num_bytes = sum(panels.numel() for panels in self._panels)
        self._table = torch.tensor(table, dtype=torch.int64)  # as `Piece` in src/blocks.cpp
        self._arguments = self._table.data_ptr(), len(table), self._bias_pointer
        self._function = library.servelab_block_linear

    def __call__(self, x_TI: Tensor) -> Tensor:
        if x_TI.ndim != 2 or x_TI.shape[1] != self._in_features or x_TI.dtype not in native.SUPPORTED_DTYPES:
            raise ValueError(
                f"input of shape {tuple(x_TI.shape)} and {x_TI.dtype} doesn't fit a weight of blocks; "
                f"pass [T, {self._in_features}] in float32 or bfloat16"
            )
        if x_TI.stride(1) != 1:
            x_TI = x_TI.contiguous()
        num_tokens = x_TI.shape[0]
        out_TO = x_TI.new_empty((num_tokens, self._out_features))
        self._function(
            x_TI.data_ptr(),
            x_TI.stride(0),
            native.dtype_code(x_TI.dtype),
            *self._arguments,
            out_TO.data_ptr(),
            self._out_features,
            num_tokens,
            self._in_features,
            torch.get_num_threads(),
        )
        return out_TO


def block_rows(piece: QuantizedRows, rows_T: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows `rows_T` of a weight as numbers [T, columns], exact but for rounding to `dtype`."""
    rows_T = rows_T.to(torch.int64).contiguous()
    out_TD = torch.empty((len(rows_T), piece.columns), dtype=dtype)
    native.library().servelab_block_rows(
        piece.kind,
        piece.blocks.ctypes.data,
        piece.blocks.strides[0],
        rows_T.data_ptr(),
        out_TD.data_ptr(),
        native.dtype_code(dtype),
        len(rows_T),
        piece.columns,
        torch.get_num_threads(),
    )
    return out_TD
