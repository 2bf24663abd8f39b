"""How a ComfyUI server is talked to."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ClientConfig(BaseModel):
    """Time-outs and limits of one connection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connect_timeout_s: float = Field(10.0, gt=0, description="TCP connection to a ComfyUI server")
    request_timeout_s: float = Field(30.0, gt=0, description="silence of a ComfyUI server in one request; its event loop stalls under load")
    max_output_bytes: int = Field(4 * 2**30, gt=0, description="largest output that is taken from a ComfyUI server")
    ping_s: float = Field(
        20.0, gt=0, description="heartbeat of the WebSocket: the server sends none, and a half-open connection looks well"
    )
    reconnect_s: float = Field(0.5, gt=0, description="first pause before the WebSocket is opened again; doubles, up to 5 s")
