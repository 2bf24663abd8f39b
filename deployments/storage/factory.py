"""From a setting to an object store."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deployments.storage.base import ObjectStore
from deployments.storage.cloud_configs import CfImagesConfig, GcsConfig
from deployments.storage.local import LocalStore
from deployments.storage.routed import RoutedStore
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
    beside: Beside = Field(
        "local",
        description="store of what STORAGE_PROVIDER=cf_images does not hold (video, audio, what comes in parts, larger pictures): "
        "local, s3, r2 or gcs, with its own settings; local, because it needs none",
    )
    also: frozenset[Provider] = Field(
        frozenset(),
        description="kinds of store that a job may choose for its results by `storage`, each with its settings; a JSON list",
    )
    s3: S3Config = Field(S3Config(), description="bucket of S3 or of a server that speaks it, for STORAGE_PROVIDER=s3")
    gcs: GcsConfig = Field(GcsConfig(), description="bucket of Google Cloud Storage, for STORAGE_PROVIDER=gcs")
    cf_images: CfImagesConfig = Field(CfImagesConfig(), description="account of Cloudflare Images, for STORAGE_PROVIDER=cf_images")

    @property
    def uses(self) -> frozenset[str]:
        """The kinds of store that hold something."""
        named = {self.provider, *self.also}
        return frozenset(named | ({self.beside} if "cf_images" in named else set()))

    @property
    def sends_files(self) -> bool:
        """Whether readers can be sent to some of the stores."""
        return bool(self.uses & {"s3", "r2", "gcs"}) or ("cf_images" in self.uses and self.cf_images.delivery_domain is not None)

    @property
    def place(self) -> str:
        """Where objects lie, for people."""
        places = {
            "local": f"folder {self.root}",
            "s3": f"bucket {self.s3.bucket}",
            "r2": f"bucket {self.s3.bucket}",
            "gcs": f"bucket {self.gcs.bucket}",
            "cf_images": f"account {self.cf_images.account_id}",
        }
        return " and ".join(f"{name}: {places[name]}" for name in sorted(self.uses))

    @model_validator(mode="after")
    def _has_a_bucket(self) -> Self:
        if {"s3", "r2"} <= self.uses:
            raise ValueError("s3 and r2 share one setting, ATELIER_STORAGE__S3: name one of them")
        if self.uses & {"s3", "r2"} and not self.s3.bucket:
            raise ValueError("STORAGE_PROVIDER=s3 needs the name of a bucket in ATELIER_STORAGE__S3__BUCKET")
        if "gcs" in self.uses and not self.gcs.bucket:
            raise ValueError("Google Cloud Storage needs the name of a bucket in GCS_BUCKET_NAME")
        if "cf_images" in self.uses and not self.cf_images.account_id:
            raise ValueError("STORAGE_PROVIDER=cf_images needs the account in CF_IMAGES_ACCOUNT_ID")
        return self


def build_object_store(config: StorageConfig) -> ObjectStore:
    """Build the configured store, or all of them as one; nothing is touched before its first call."""
    first = _build(config, config.provider)
    if not config.also:
        return first
    return RoutedStore(first, {name: first if name == config.provider else _build(config, name) for name in config.also})


def _build(config: StorageConfig, provider: Provider) -> ObjectStore:
    if provider == "cf_images":
        from deployments.storage.cf_images import CfImagesStore

        return CfImagesStore(config.cf_images, _build(config, config.beside))
    if provider == "local":
        return LocalStore(config.root)
    if provider == "gcs":
        from deployments.storage.gcs import GcsStore

        return GcsStore(config.gcs)
    return S3Store(config.s3, provider, R2_KEYS if provider == "r2" else None)


def r2_config(bucket: str, account_id: str) -> dict[str, str]:
    """Return the S3 settings of a bucket of Cloudflare R2."""
    return {"bucket": bucket, "endpoint": f"https://{account_id}.r2.cloudflarestorage.com", "region": "auto"}
