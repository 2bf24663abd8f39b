"""What ComfyUI servers say of themselves, joined over all of them and without what is nobody's business."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from pydantic import Field

from deployments.comfyui_bridge.servers import ServerStats
from serve_app.api.schemas import View


class ServerStatsView(View):
    """What one server says."""

    name: str = Field(examples=["comfyui-1f2e3d"])
    healthy: bool
    system: dict[str, Any]
    devices: list[dict[str, Any]]
    error: str | None


class SystemStats(View):
    """What the servers say, in ComfyUI's own form: of the first that answers the system, of all the devices."""

    system: dict[str, Any] = Field(examples=[{"os": "posix", "comfyui_version": "0.33.0", "python_version": "3.12.3"}])
    devices: list[dict[str, Any]] = Field(
        description="of all servers; `backend` says whose", examples=[[{"name": "cuda:0", "backend": "gpu1"}]]
    )
    backends: list[ServerStatsView]

    @classmethod
    def of(cls, servers: Iterable[ServerStats]) -> Self:
        """Show the answers."""
        return cls.model_validate(joined(servers))


def joined(servers: Iterable[ServerStats]) -> dict[str, Any]:
    """Return the fields of :class:`SystemStats`."""
    shown = [ServerStatsView.model_validate(server) for server in servers]
    return {
        "system": next((server.system for server in shown if server.system), {}),
        "devices": [device | {"backend": server.name} for server in shown for device in server.devices],
        "backends": shown,
    }
