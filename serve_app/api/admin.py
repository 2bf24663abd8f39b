"""Figures for operators: load, waiting times, and why the autoscaler did what it did."""

from __future__ import annotations

from fastapi import APIRouter

from serve_app.api.dependencies import Service, Tenant
from serve_app.api.errors import documented
from serve_app.api.schemas import ScalingList, StatsView

router = APIRouter(prefix="/v1", tags=["operations"])


@router.get("/stats", summary="Counts and waiting times", responses=documented(503))
async def read_stats(service: Service, tenant: Tenant) -> StatsView:
    """Count jobs by status and kind, and show the load of each pool."""
    return StatsView.of(await service.stats(tenant=tenant))


@router.get("/admin/scaling", summary="Why there are so many replicas", responses=documented(503))
async def read_scaling(service: Service) -> ScalingList:
    """Show the newest decisions of the autoscaler, each with its reason."""
    return ScalingList.of(await service.scaling())
