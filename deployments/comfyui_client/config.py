"""How a ComfyUI server is talked to."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ClientConfig(BaseModel):
    """Time-outs and limits of one connection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connect_timeout_s: float = Field(10.0, gt=0, description="TCP connection to a ComfyUI server")
    request_timeout_s: float = Field(30.0, gt=0, description="silence of a ComfyUI server in one request; its event loop stalls under load")
    max_answer_bytes: int = Field(
        64 * 2**20, gt=0, description="longest answer of a ComfyUI server that is no output; object_info has 2 MB"
    )
    max_message_bytes: int = Field(256 * 2**20, gt=0, description="longest message of its WebSocket: a picture of SaveImageWebsocket")
    ping_s: float = Field(
        20.0, gt=0, description="heartbeat of the WebSocket: the server sends none, and a half-open connection looks well"
    )
    reconnect_s: float = Field(0.5, gt=0, description="first pause before the WebSocket is opened again; doubles, up to 5 s")
