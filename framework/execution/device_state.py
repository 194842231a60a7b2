"""Batch state that stays on the device: a row a slot, updated by deltas.

The host never sends a sampled token back: `Runner` writes it here, and the next step reads it from here. Shape letters:
S slots, L positions (max_model_len), B blocks of the longest table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from framework.execution.executor import Admission, StepBatch


class DeviceState:
    """Tokens, block tables and seeds of every running request."""

    def __init__(self, *, num_slots: int, max_model_len: int, block_size: int, device: torch.device) -> None:
        self.device = device
        num_columns = -(-max_model_len // block_size)
        self.token_ids_SL = torch.zeros(num_slots, max_model_len, dtype=torch.int32, device=device)
        self.block_table_SB = torch.zeros(num_slots, num_columns, dtype=torch.int32, device=device)
        self.seed_S = torch.zeros(num_slots, dtype=torch.int64, device=device)
        self.num_prompt_S = torch.zeros(num_slots, dtype=torch.int64, device=device)

    def apply(self, batch: StepBatch) -> None:
        """Take over what the plan changed."""
        for admission in batch.admissions:
            self._admit(admission)
        if batch.new_blocks:
            self._append_blocks(batch.new_blocks)

    def _admit(self, admission: Admission) -> None:
        ids = torch.from_numpy(np.frombuffer(admission.token_ids, dtype=np.int32).copy())
        self.token_ids_SL[admission.slot, : len(ids)].copy_(ids)
        self.seed_S[admission.slot] = admission.seed
        self.num_prompt_S[admission.slot] = admission.num_prompt

    def _append_blocks(self, new_blocks: Sequence[tuple[int, int, list[int]]]) -> None:
        """One scatter for all rows: in steady decode, a few entries a step."""
        lengths = [len(ids) for _, _, ids in new_blocks]
        slots = np.repeat([slot for slot, _, _ in new_blocks], lengths)
        columns = np.concatenate([np.arange(first, first + len(ids)) for _, first, ids in new_blocks])
        values = np.concatenate([np.asarray(ids, dtype=np.int32) for _, _, ids in new_blocks])
        index = torch.from_numpy(np.stack([slots, columns])).to(self.device)
        self.block_table_SB[index[0], index[1]] = torch.from_numpy(values).to(self.device)
