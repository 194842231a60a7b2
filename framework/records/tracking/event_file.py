"""TensorBoard event files, written without torch, whose import takes longer than most simulated cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class EventFile:
    """One event file in `folder`; a context manager, which writes it out at the end."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder))

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()

    def scalars(self, values: Mapping[str, float], step: int, wall_time_s: float) -> None:
        """One point of each series in `values`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._add([Summary.Value(tag=name, simple_value=value) for name, value in values.items()], step, wall_time_s)

    def text(self, tag: str, text: str) -> None:
        """A line on the page of texts."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

        tensor = TensorProto(
            dtype="DT_STRING",
            string_val=[text.encode()],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self._add([Summary.Value(tag=f"{tag}/text_summary", metadata=kind, tensor=tensor)])

    def hyperparameters(self, values: Mapping[str, str | int | float | bool], metrics: Mapping[str, float]) -> None:
        """A row of the table of hyperparameters, with these metrics beside it."""
        from tensorboard.plugins.hparams import api_pb2, metadata
        from tensorboard.plugins.hparams import plugin_data_pb2 as data

        start = data.SessionStartInfo()
        infos = []
        for name, value in values.items():
            if isinstance(value, bool):
                start.hparams[name].bool_value, kind = value, api_pb2.DATA_TYPE_BOOL
            elif isinstance(value, str):
                start.hparams[name].string_value, kind = value, api_pb2.DATA_TYPE_STRING
            else:
                start.hparams[name].number_value, kind = value, api_pb2.DATA_TYPE_FLOAT64
            infos.append(api_pb2.HParamInfo(name=name, type=kind))
        shown = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=name)) for name in metrics]
        experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=shown)
        end = data.SessionEndInfo(status=api_pb2.STATUS_SUCCESS)
        self._session(metadata.EXPERIMENT_TAG, experiment=experiment)
        self._session(metadata.SESSION_START_INFO_TAG, session_start_info=start)
        self._session(metadata.SESSION_END_INFO_TAG, session_end_info=end)
        self.scalars(metrics, 0, 0.0)

    def _session(self, tag: str, **part: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        about = metadata.create_summary_metadata(HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **part))
        self._add([Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])

    def _add(self, values: list[Any], step: int = 0, wall_time_s: float = 0.0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._writer.add_event(Event(step=step, wall_time=wall_time_s, summary=Summary(value=values)))
