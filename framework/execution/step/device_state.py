"""Batch state that stays on the device: a row per slot, updated by deltas.

The host never sends a sampled token back: `Runner` writes it here, and the next step reads it from here. Shape letters:
S slots, L positions (max_model_len), B blocks of the longest table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from framework.execution.step.staging import Staging
from framework.interfaces.executor import Admission, StepBatch


class DeviceState:
    """Tokens, block tables and seeds of every running request.

    One row past the last slot belongs to the rows that pad a captured graph. It is never written by a request.
    """

    def __init__(self, *, num_slots: int, max_model_len: int, block_size: int, device: torch.device) -> None:
        self.device, self.num_slots, self.block_size = device, num_slots, block_size
        self.staging = Staging(device)
        num_columns = -(-max_model_len // block_size)
        num_rows = num_slots + 1
        self.token_ids_SL = torch.zeros(num_rows, max_model_len, dtype=torch.int32, device=device)
        self.block_table_SB = torch.zeros(num_rows, num_columns, dtype=torch.int32, device=device)
        self.seed_S = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.num_prompt_S = torch.zeros(num_rows, dtype=torch.int64, device=device)

    def apply(self, batch: StepBatch) -> None:
        """Apply what the plan changed."""
        if batch.admissions:
            self._admit(batch.admissions)
        if batch.new_blocks:
            self._write_blocks(batch.new_blocks)

    def _admit(self, admissions: Sequence[Admission]) -> None:
        ids = [np.frombuffer(admission.token_ids, dtype=np.int32) for admission in admissions]
        slots = np.array([admission.slot for admission in admissions])
        # The same bits with a sign. Without a dtype, one seed of 2^63 or more would turn all of them into floats.
        seeds = np.array([admission.seed for admission in admissions], dtype=np.uint64).view(np.int64)
        num_prompt = np.array([admission.num_prompt for admission in admissions])
        lengths = np.array([len(one) for one in ids])
        before = np.cumsum(lengths) - lengths
        sent = self.staging.send([np.concatenate(ids), slots, seeds, num_prompt, lengths, before])
        ids_E, slot_A, seed_A, num_prompt_A, length_A, before_A = sent
        first_A = slot_A * self.token_ids_SL.shape[1] - before_A  # where a request's first token goes, less its index
        index_E = torch.arange(len(ids_E), device=self.device)
        where_E = index_E + first_A.repeat_interleave(length_A, output_size=len(ids_E))
        self.token_ids_SL.view(-1).index_copy_(0, where_E, ids_E.int())
        self.seed_S.index_copy_(0, slot_A, seed_A)
        self.num_prompt_S.index_copy_(0, slot_A, num_prompt_A)

    def _write_blocks(self, new_blocks: Sequence[tuple[int, int, list[int]]]) -> None:
        """One scatter for all rows: in steady decode, a few entries per step."""
        width = self.block_table_SB.shape[1]
        where = np.concatenate([np.arange(first, first + len(ids)) + slot * width for slot, first, ids in new_blocks])
        values = np.concatenate([np.asarray(ids) for _, _, ids in new_blocks])
        where_E, values_E = self.staging.send([where, values])
        self.block_table_SB.view(-1).index_copy_(0, where_E, values_E.int())
