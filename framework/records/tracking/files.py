"""The tracker that exports nothing: the files of the record are enough."""

from __future__ import annotations

from framework.records.record import Record
from framework.records.tracking.base import CellInfo, Tracker
from framework.registry import TRACKERS


@TRACKERS.register("files")
class Files(Tracker):
    """Exports nothing beyond the record in the output folder."""

    def start(self, cell: CellInfo) -> None:
        pass

    def finish(self, record: Record) -> None:
        pass
