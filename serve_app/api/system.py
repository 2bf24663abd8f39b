"""Probes, and what this installation can do."""

from __future__ import annotations

import time

from fastapi import APIRouter

from deployments.jobs.capabilities import Capabilities
from deployments.jobs.errors import StoreUnavailable
from deployments.storage.sweep import read_ledger
from serve_app.api.dependencies import Config, ObjectWatch, Service
from serve_app.api.errors import documented
from serve_app.api.schemas import CleanupView, HealthView, ObjectStoreView, ReadyView

router = APIRouter(tags=["operations"])


@router.get("/health", summary="Live?")
async def read_health(config: Config) -> HealthView:
    """Answer as long as this process lives. Asks nobody else: a store that restarts must not have every ingress killed."""
    return HealthView(
        version=config.version,
        timestamp=time.time(),
        data_dir=str(config.data_dir),
        data_dir_exists=config.data_dir.is_dir(),
        cleanup=CleanupView.model_validate(read_ledger(config.work_root)),
    )


@router.get("/ready", summary="Ready for work?", responses=documented(503))
async def read_ready(service: Service, objects: ObjectWatch) -> ReadyView:
    """Answer 200 while the job store answers, else 503.

    What is wrong with the object store is said, and is no 503: jobs are accepted, looked at and cancelled without it.
    """
    if not service.ready():
        raise StoreUnavailable("the job store does not answer yet: try again in a few seconds")
    return ReadyView(object_store=None if objects is None else ObjectStoreView.model_validate(objects))


@router.get("/v1/capabilities", summary="Engines, models and their licences, backends, formats, limits", responses=documented(503))
async def read_capabilities(service: Service) -> Capabilities:
    """Describe what this installation computes, with what, and within which limits."""
    return await service.capabilities()
