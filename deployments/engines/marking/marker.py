"""Marks the results of jobs as the settings say."""

from __future__ import annotations

from deployments.engines.marking.carriers import put_label
from deployments.engines.marking.config import MarkingConfig
from deployments.engines.marking.label import AigcLabel
from deployments.jobs.model import Job, JsonObject
from deployments.jobs.ports import Marker, OutputFile


class FileMarker:
    """Implements :class:`deployments.jobs.ports.Marker`."""

    def __init__(self, config: MarkingConfig) -> None:
        self._config = config

    def mark(self, job: Job, file: OutputFile) -> JsonObject:
        """See the port."""
        config = self._config
        label = AigcLabel(config.producer, job.id, propagator=config.propagator, propagate_id=job.id if config.propagator else "")
        return {"aigc": put_label(file.path, label)}  # None: the format has no carrier, which the record says


def build_marker(config: MarkingConfig) -> Marker | None:
    """Return what marks results; None when they are stored as they were made."""
    return None if config.profile == "off" else FileMarker(config)
