"""The dialects that an installation answers, by its settings."""

from __future__ import annotations

from serve_app.api.dialect import Dialect
from serve_app.dialects import drawing, drawing_socket, middleware, task_list, task_service
from serve_app.dialects.config import DialectsConfig
from serve_app.dialects.face2face import build_face2face
from serve_app.dialects.gateway import build_gateway


def build_dialects(config: DialectsConfig) -> tuple[Dialect, ...]:
    """Return the dialects that are enabled. What two of them claim is there when either is."""
    chosen: list[Dialect] = []
    if config.enabled & {"tasks", "middleware"}:
        chosen.append(Dialect(tag=task_list.TAG, routers=(task_list.router,)))
    if "tasks" in config.enabled:
        chosen.append(task_service.DIALECT)
    if "middleware" in config.enabled:
        chosen.append(middleware.DIALECT)
    if "gateway" in config.enabled:
        chosen.append(build_gateway(config))
    if "drawing" in config.enabled:
        chosen.append(Dialect(tag=drawing.TAG, routers=(drawing.router, drawing_socket.router), uploads=frozenset({drawing.PATH})))
    if "face2face" in config.enabled:
        chosen.append(build_face2face(config))
    return tuple(chosen)
