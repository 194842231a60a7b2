"""A shadow of the KV memory. It knows the prefix that every position must hold, so that a wrong read is noticed."""

from __future__ import annotations

from framework.interfaces.executor import Admission, StepBatch


class ShadowMemory:
    """Follows sealed steps as a device would. Slow: a hash for every position that is written, and a look at each read.

    Raises:
        AssertionError: in `run`, for a position read that holds the KV of another prefix, or a gap in a block table.
    """

    def __init__(self, num_blocks: int, block_size: int, num_slots: int) -> None:
        self._block_size = block_size
        self._memory: list[int | None] = [None] * (num_blocks * block_size)
        self._tokens: list[list[int]] = [[] for _ in range(num_slots)]
        self._tables: list[list[int]] = [[] for _ in range(num_slots)]
        self._digests_of: list[list[int]] = [[] for _ in range(num_slots)]
        self._owner = [-1] * num_slots

    def run(self, batch: StepBatch) -> None:
        """Write what `batch` computes, then check all that its rows read."""
        for admission in batch.admissions:
            self._admit(admission)
        for slot, first, ids in batch.new_blocks:
            assert first <= len(self._tables[slot]), "a block table has a gap"
            self._tables[slot][first:] = ids
        rows = list(zip(batch.slots, batch.starts, batch.row_tokens, strict=True))
        for slot, start, num in rows:  # a layer writes all its keys before any row reads
            digests = self._digests(slot, start + num)
            for position in range(start, start + num):
                self._memory[self._address(slot, position)] = digests[position]
        for slot, start, num in rows:
            self._check_reads(slot, start + num)

    @staticmethod
    def check(batch: StepBatch) -> None:
        """Refuse a batch that contradicts itself.

        Raises:
            AssertionError: saying how.
        """
        assert batch.num_tokens == sum(batch.row_tokens) > 0, f"{batch.num_tokens} tokens planned: {batch.row_tokens}"
        assert all(n == 1 for n in batch.row_tokens[: batch.num_decode_rows])
        assert all(n > 1 for n in batch.row_tokens[batch.num_decode_rows :])
        assert len(set(batch.slots)) == len(batch.slots), "a slot runs twice in one step"

    def sampled(self, slot: int, position: int, token: int) -> None:
        """Note that the row in `slot` brought `token`, which belongs to `position` of its sequence."""
        assert len(self._tokens[slot]) == position
        self._tokens[slot].append(token)

    def _admit(self, admission: Admission) -> None:
        slot, keys = admission.slot, admission.keys
        tokens = list(admission.token_ids)
        if keys is not None:  # a token stands for its key and its place in it, or for itself only
            covered = [hash((keys.keys[p // keys.key_tokens], p % keys.key_tokens)) for p in range(keys.num_tokens)]
            own = [hash((admission.request_id, p, "own")) for p in range(keys.num_tokens, admission.num_prompt)]
            tokens = covered + own + tokens
        self._tokens[slot], self._tables[slot], self._digests_of[slot] = tokens, [], []
        self._owner[slot] = admission.request_id

    def _address(self, slot: int, position: int) -> int:
        return self._tables[slot][position // self._block_size] * self._block_size + position % self._block_size

    def _check_reads(self, slot: int, num: int) -> None:
        digests, size = self._digests(slot, num), self._block_size
        for start in range(0, num, size):
            want = digests[start : min(start + size, num)]
            address = self._address(slot, start)
            if self._memory[address : address + len(want)] != want:
                wrong = next(i for i in range(len(want)) if self._memory[address + i] != want[i])
                raise AssertionError(f"request {self._owner[slot]} reads wrong KV at {start + wrong}")

    def _digests(self, slot: int, num: int) -> list[int]:
        """What each position up to at least `num` must hold: a hash over all tokens up to it."""
        digests, tokens = self._digests_of[slot], self._tokens[slot]
        assert len(tokens) >= num, "a token runs before it was sampled"
        for position in range(len(digests), num):
            digests.append(hash((digests[-1] if digests else 0, tokens[position])))
        return digests
