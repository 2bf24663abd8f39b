"""From a setting to an object store."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deployments.storage.base import ObjectStore
from deployments.storage.local import LocalStore
from deployments.storage.s3 import S3Store
from deployments.storage.s3_client import S3Config

Provider = Literal["local", "s3", "r2", "gcs", "cf_images"]
Beside = Literal["local", "s3", "r2", "gcs"]
R2_KEYS = ("R2_ACCESS_KEY", "R2_SECRET_KEY")  # names that R2's users have in their environment; S3 has boto3's own


class StorageConfig(BaseModel):
    """Which object store holds uploads and artifacts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Provider = Field("local", description="kind of store")
    root: Path = Field(Path("var/objects"), description="folder of the local store, seen by every machine of the cluster")
    s3: S3Config = Field(S3Config(), description="bucket of S3 or of a server that speaks it, for STORAGE_PROVIDER=s3")

    @model_validator(mode="after")
    def _has_a_bucket(self) -> Self:
        if self.provider == "s3" and not self.s3.bucket:
            raise ValueError("STORAGE_PROVIDER=s3 needs the name of a bucket in ATELIER_STORAGE__S3__BUCKET")
        return self


def build_object_store(config: StorageConfig) -> ObjectStore:
    """Build the configured store; nothing is touched before its first call."""
    if config.provider == "local":
        return LocalStore(config.root)
    return S3Store(config.s3, config.provider, R2_KEYS if config.provider == "r2" else None)


def r2_config(bucket: str, account_id: str) -> dict[str, str]:
    """Return the S3 settings of a bucket of Cloudflare R2."""
    return {"bucket": bucket, "endpoint": f"https://{account_id}.r2.cloudflarestorage.com", "region": "auto"}
