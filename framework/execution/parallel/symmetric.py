"""All-reduce through PyTorch's symmetric memory: every rank reads its peers' GPUs over NVLink, without NCCL's latency.

One shot: each rank reads everything and sums it. Two shots: each sums a share and writes it to all, which moves less
once messages are large. Both are barriers on the GPU, so they can be captured in graphs. Multicast (multimem) is never
used.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch.distributed import PrefixStore, ProcessGroup

from framework.execution.parallel.counted_store import CountedStore

ONE_SHOT_BYTES = 512 << 10
"""The largest message for one shot. Above it, reading (ranks - 1) times the message costs more than a barrier."""
TWO_SHOT_BYTES = 16 << 20
"""The largest message for two shots. Above it NCCL is used, whose rings reach full bandwidth."""
_ALIGNMENT_BYTES = 16


class SymmetricSum:
    """Sums tensors over the ranks of a process group. Every rank has to make the same calls in the same order.

    Args:
        store: where the ranks meet.
        name: of this group, like no other's.
        num_elements: of the largest tensor that it will see; larger ones than `TWO_SHOT_BYTES` are left to NCCL.

    Raises:
        RuntimeError: the GPUs cannot read each other's memory, or a kernel is missing.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        size: int,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        num_elements: int,
    ) -> None:
        os.environ.setdefault("TORCH_SYMM_MEM_DISABLE_MULTICAST", "1")
        import torch.distributed._symmetric_memory as symmetric_memory
        from torch._C import _distributed_c10d as c10d
        from torch.distributed.distributed_c10d import GroupName

        self.name: GroupName | None = GroupName(name)
        self._store = CountedStore(PrefixStore("symmetric", store))  # kept: C++ calls it, and does not hold it
        self._group = ProcessGroup(self._store, rank, size)  # the kernels find the ranks' memory by its name
        self._group._set_group_name(self.name)
        c10d._register_process_group(self.name, self._group)
        self._unregister = c10d._unregister_process_group
        num_elements = min(num_elements, TWO_SHOT_BYTES // dtype.itemsize)
        num_elements += -num_elements % (_ALIGNMENT_BYTES // dtype.itemsize)
        self._buffer = symmetric_memory.empty(num_elements, dtype=dtype, device=device)
        self._handle = symmetric_memory.rendezvous(self._buffer, self.name)

    def __call__(self, x: Tensor) -> Tensor | None:
        """The sum in new memory. None for a tensor that cannot be taken: too large, of another dtype, or unaligned."""
        size = x.numel()
        if size > self._buffer.numel() or x.dtype != self._buffer.dtype or x.nbytes % _ALIGNMENT_BYTES or not size:
            return None
        shared = self._buffer[:size].view(x.shape)
        if x.nbytes <= ONE_SHOT_BYTES:
            total: Tensor = torch.ops.symm_mem.one_shot_all_reduce_copy(shared, x.contiguous(), "sum", self.name)
            return total
        shared.copy_(x)
        out = torch.empty_like(shared)
        torch.ops.symm_mem.two_shot_all_reduce_out(shared, "sum", self.name, out)
        return out

    def self_test(self, rank: int, size: int) -> str | None:
        """Test both kernels with known sums and return what is wrong, if anything. Waits for the device."""
        for num_bytes in (min(4096, self._buffer.nbytes), min(2 * ONE_SHOT_BYTES, self._buffer.nbytes)):
            count = num_bytes // self._buffer.dtype.itemsize
            ramp = torch.arange(count, device=self._buffer.device) % 8
            try:
                total = self((ramp + rank).to(self._buffer.dtype))
            except RuntimeError as error:  # the same on every rank: a kernel is missing, or does not know the dtype
                return str(error).splitlines()[0]
            if total is None or not torch.equal(total.long(), size * ramp + size * (size - 1) // 2):
                return f"a sum of {num_bytes} bytes over {size} ranks was wrong"
        return None

    def close(self) -> None:
        """Forget the name of the process group and give back the buffer. Calling it again does nothing."""
        if self.name is not None:
            self._unregister(self.name)
            self.name = None
            del self._handle, self._buffer
