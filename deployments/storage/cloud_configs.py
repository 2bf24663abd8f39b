"""Where the buckets of clouds other than S3's are. Secrets are not here: the processes that use them read them from their environment."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

CF_IMAGES_TOKEN = "CF_IMAGES_API_TOKEN"  # noqa: S105 -- the name of the environment variable
GCS_CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"  # read by google.auth: the path of a key file


class GcsServer(BaseModel):
    """Where Google Cloud Storage is. The credentials come from google.auth's default chain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = Field(None, description="URL of an emulator; none for Google's own")
    anonymous: bool = Field(False, description="send no credentials: for emulators, with an endpoint")
    ca_file: Path | None = Field(None, description="certificates that sign the endpoint's, in PEM; none for those of the system")

    @field_validator("endpoint")
    @classmethod
    def _is_a_server(cls, value: str | None) -> str | None:
        return None if value is None else _server(value, "a GCS endpoint")

    @model_validator(mode="after")
    def _anonymous_elsewhere_only(self) -> Self:
        if self.anonymous and self.endpoint is None:
            raise ValueError("anonymous access to Google Cloud Storage is for emulators: set the endpoint too, or leave it out")
        return self


class GcsConfig(GcsServer):
    """Which bucket is ours."""

    bucket: str = Field("", description="name of the bucket, which must exist")
    region: str | None = Field(
        None, description="where the bucket is, such as EUROPE-WEST4; compared with what the bucket says at the start"
    )
    prefix: str = Field("", description="folder of the bucket that is ours, such as atelier/; empty for the whole bucket")

    @field_validator("prefix")
    @classmethod
    def _is_a_folder(cls, value: str) -> str:
        return f"{value.strip('/')}/" if value.strip("/") else ""


class CfImagesConfig(BaseModel):
    """An account of Cloudflare Images. The token is in ``CF_IMAGES_API_TOKEN``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    account_id: str = Field("", description="account at Cloudflare")
    delivery_domain: str | None = Field(None, description="domain that delivers the pictures to readers")
    endpoint: str | None = Field(None, description="URL of another server that speaks the API, for tests; none for Cloudflare's own")
    ca_file: Path | None = Field(None, description="certificates that sign the endpoint's, in PEM; none for those of the system")

    @field_validator("endpoint")
    @classmethod
    def _is_a_server(cls, value: str | None) -> str | None:
        return None if value is None else _server(value, "an endpoint of Cloudflare Images")

    @field_validator("delivery_domain")
    @classmethod
    def _is_a_domain(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value if "//" in value else f"https://{value}")
        if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.path.strip("/"):
            raise ValueError("CF_IMAGES_DELIVERY_DOMAIN is a domain alone, such as images.example.com")
        return parts.netloc


def _server(value: str, what: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.path.strip("/"):
        raise ValueError(f"{what} is written https://host[:port], without keys, a path or a query")
    return value.rstrip("/")
