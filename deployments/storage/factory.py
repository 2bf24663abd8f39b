"""From a setting to an object store."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.storage.base import ObjectStore
from deployments.storage.local import LocalStore


class StorageConfig(BaseModel):
    """Which object store holds uploads and artifacts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Literal["local"] = Field("local", description="kind of store")
    root: Path = Field(Path("var/objects"), description="folder of the local store, seen by every machine of the cluster")


def build_object_store(config: StorageConfig) -> ObjectStore:
    """Build the configured store; nothing is touched before its first call."""
    return LocalStore(config.root)
