"""What the HTTP API needs to know about its surroundings."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from deployments.engines.media.limits import MediaLimits
from serve_app.api.origins import Origin, TrustedHosts, normal_host, parse_authority


class ApiConfig(BaseModel):
    """Addresses and limits of the HTTP API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = "Atelier"
    version: str = "0.1.0"
    public_base_url: str | None = Field(
        None, description="how clients reach this service, such as https://atelier.example.com; None: as the request says"
    )
    bind_host: str = Field("127.0.0.1", description="address that is listened on, which requests may ask for")
    allowed_hosts: frozenset[str] = Field(
        frozenset(),
        description="names that requests may ask for (Host) besides loopback, the address listened on and public_base_url's, "
        "such as atelier.internal",
    )
    allowed_origins: frozenset[str] = Field(
        frozenset(),
        description="web pages of other hosts that may open a WebSocket and send what changes something, such as https://studio.example.com",
    )
    files_url: str | None = Field(
        None,
        description="public address of the bucket, such as https://media.example.com: files' URLs then lead there, to whoever has them; "
        "not set: they lead to this service",
    )
    signed_links: bool = Field(
        False, description="files are read by links that end, which jobs and uploads are answered with; the keys are in ATELIER_LINK_KEYS"
    )
    signed_link_s: int = Field(
        24 * 3600, ge=60, description="seconds that such a link is good for at least, and at most twice that: it stays the same for a while"
    )
    max_body_bytes: int = Field(32 * 1024**2, gt=0, description="largest request body except uploads; holds inline base64")
    media: MediaLimits = Field(MediaLimits(), description="upper bounds of pictures that a request has this service open itself")
    work_root: Path = Field(Path("var/work"), description="folder in which workers compute, for GET /health")
    data_dir: Path = Field(Path("var"), description="where the data of this installation lie, for GET /health")
    max_upload_bytes: int = Field(2 * 1024**3, gt=0, description="largest body of POST /v1/files, multipart overhead not counted")

    @model_validator(mode="after")
    def _files_are_public_or_signed(self) -> Self:
        if self.files_url and self.signed_links:
            raise ValueError("files_url and signed_links exclude each other: in a public bucket no link ends")
        return self

    @field_validator("public_base_url", "files_url")
    @classmethod
    def _http_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        if not value:
            return None
        scheme, authority, path, query, fragment = urlsplit(value)
        if query or fragment or not (value.isascii() and value.isprintable()) or " " in value:
            raise ValueError(f"{info.field_name} has no query, no fragment and no blanks, such as https://atelier.example.com")
        return str(Origin.parse(f"{scheme}://{authority}")) + path.rstrip("/")

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: frozenset[str]) -> frozenset[str]:
        return frozenset(_host_without_port(host) for host in value)

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: frozenset[str]) -> frozenset[str]:
        return frozenset(str(Origin.parse(origin.removesuffix("/"))) for origin in value)

    def trusted_hosts(self) -> TrustedHosts:
        """Return what the Host header may say."""
        public = {Origin.parse(_without_path(self.public_base_url)).host} if self.public_base_url else set()
        if _is_wildcard(self.bind_host):
            return TrustedHosts(self.allowed_hosts | public, any_address=True)
        return TrustedHosts(self.allowed_hosts | public | {normal_host(self.bind_host)}, any_address=False)

    def trusted_origins(self) -> frozenset[Origin]:
        """Return the origins, besides the service's own, whose pages may change something."""
        public = {_without_path(self.public_base_url)} if self.public_base_url else set()
        return frozenset(Origin.parse(text) for text in {*self.allowed_origins, *public})


def _host_without_port(text: str) -> str:
    host, port = parse_authority(f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text)
    if port is not None:
        raise ValueError(f"{text!r} has a port: allowed_hosts are compared without one")
    return host


def _without_path(url: str) -> str:
    scheme, authority, *_ = urlsplit(url)
    return f"{scheme}://{authority}"


def _is_wildcard(host: str) -> bool:
    try:
        return not host or ip_address(host).is_unspecified
    except ValueError:
        return False
