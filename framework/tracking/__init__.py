"""Records and the trackers that export them. Importing this package registers the framework's trackers."""

from framework.tracking import files, tensorboard_tracker, trackio_tracker, wandb_tracker
from framework.tracking.base import CellInfo, Tracker, publish
from framework.tracking.record import Record, RecordWriter, Status, cell_id, read_record

__all__ = [
    "CellInfo",
    "Record",
    "RecordWriter",
    "Status",
    "Tracker",
    "cell_id",
    "files",
    "publish",
    "read_record",
    "tensorboard_tracker",
    "trackio_tracker",
    "wandb_tracker",
]
