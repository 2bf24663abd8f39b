"""What the HTTP API needs to know about its surroundings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ApiConfig(BaseModel):
    """Addresses and limits of the HTTP API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = "Atelier"
    version: str = "0.1.0"
    public_base_url: str | None = Field(
        None, description="how clients reach this service, such as https://atelier.example.com; None: as the request says"
    )
    max_body_bytes: int = Field(32 * 1024**2, gt=0, description="largest request body except uploads; holds inline base64")
    max_upload_bytes: int = Field(2 * 1024**3, gt=0, description="largest body of POST /v1/files, multipart overhead not counted")
    allowed_origins: frozenset[str] = Field(
        frozenset(), description="web pages of other hosts that may open a WebSocket, such as https://studio.example.com"
    )
