"""Structured logs: a constant sentence, data as fields, the job's id bound once.

Ray Serve's JSON formatter drops unknown ``extra`` keys but passes ``ray_serve_extra_fields`` through; loggers below ``ray.serve``
are written to the replica's log file. So every logger is named ``ray.serve.<module>`` and every field is nested there. A process that
is no replica has no such file: ``log_to_stderr`` gives it the same lines in the worker's ``.err`` file.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

_BOUND: ContextVar[dict[str, Any]] = ContextVar("atelier_log_fields", default={})  # noqa: B039 -- never changed in place


class JsonFormatter(logging.Formatter):
    """One JSON object a line: what Serve's formatter writes for replicas, in short."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record with its fields."""
        line = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            **getattr(record, "ray_serve_extra_fields", {}),
        }
        if record.exc_info:
            line["exc_text"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Write this process' log lines as JSON to its standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("ray.serve")
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module; pass ``__name__``."""
    return logging.getLogger(f"ray.serve.{name}")


def fields(**data: Any) -> dict[str, Any]:  # noqa: ANN401 -- a log field is any JSON value
    """Return the ``extra`` of a log call: the bound fields and ``data``."""
    return {"ray_serve_extra_fields": {**_BOUND.get(), **data}}


@contextlib.contextmanager
def bound(**data: Any) -> Iterator[None]:  # noqa: ANN401 -- a log field is any JSON value
    """Add fields, such as job_id and attempt, to every log line written inside the block (and in the tasks it starts)."""
    token = _BOUND.set({**_BOUND.get(), **data})
    try:
        yield
    finally:
        _BOUND.reset(token)
