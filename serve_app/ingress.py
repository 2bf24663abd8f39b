"""The front door: the same verbs over HTTP and as methods of a DeploymentHandle.

``submit``, ``get``, ``list_jobs``, ``cancel`` and ``watch`` take and return plain JSON values, so that a Ray job needs none of our
classes to call them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray.serve.handle import DeploymentHandle

from deployments.comfyui_bridge.catalogue import WorkflowCatalogue
from deployments.comfyui_bridge.config import ComfyConfig
from deployments.comfyui_bridge.descriptions import Descriptions
from deployments.comfyui_bridge.desk import ComfyDesk
from deployments.comfyui_bridge.planner import ComfyPlanner
from deployments.comfyui_bridge.servers import ComfyServers
from deployments.drawing.binder import SketchBinder
from deployments.drawing.config import DrawingConfig
from deployments.drawing.desk import DrawingDesk, DrawingParts
from deployments.drawing.styles import StyleBook
from deployments.engines.marking.config import MarkingConfig
from deployments.engines.marking.inspection import inspect
from deployments.engines.media.header import check_header
from deployments.engines.media.limits import MediaLimits
from deployments.handles import StoreHandle, UploaderHandle, ensure_store
from deployments.jobs.capabilities import Capabilities
from deployments.jobs.config import StoreConfig
from deployments.jobs.direct_uploads import DirectUploads
from deployments.jobs.events import EventId
from deployments.jobs.face2face_planner import Face2FacePlanner
from deployments.jobs.feed import EventFeed
from deployments.jobs.intake import IntakeLimits, MediaIntake
from deployments.jobs.model import Job, JobQuery, JsonObject
from deployments.jobs.ports import SystemClock
from deployments.jobs.preview_feed import PreviewFeed
from deployments.jobs.retention import Janitor, RetentionConfig
from deployments.jobs.service import JobService, ServiceConfig
from deployments.jobs.store_watch import ObjectStoreWatch
from deployments.jobs.verification import Verification
from deployments.jobs.webhook_desk import WebhookDesk
from deployments.storage.address import AllowList
from deployments.storage.disk import DiskFloor
from deployments.storage.factory import StorageConfig, build_object_store
from deployments.storage.fetch import FetchConfig, GuardedFetcher
from deployments.storage.sources import InputSources
from deployments.storage.upload import upload_stream
from serve_app.api.app import create_api
from serve_app.api.config import ApiConfig
from serve_app.api.links import Links
from serve_app.api.requests import parse_job_request
from serve_app.api.schemas import EventView, JobView
from serve_app.api.signing import LinkSigner, read_keys
from serve_app.dialects.chosen import build_dialects
from serve_app.dialects.config import DialectsConfig


class IngressSetup(BaseModel):
    """Everything that the ingress is bound with, besides handles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: StoreConfig
    storage: StorageConfig
    fetch: FetchConfig
    webhook_secrets: tuple[str, ...]  # their names
    intake: IntakeLimits
    service: ServiceConfig
    comfyui: ComfyConfig
    face2face_engines: tuple[str, ...]  # installed
    face2face_auto: tuple[str, ...]
    workflows: Path  # folder of the workflows that ship
    drawing: DrawingConfig
    media: MediaLimits
    api: ApiConfig
    dialects: DialectsConfig
    capabilities: Capabilities
    marking: MarkingConfig = MarkingConfig()
    retention: RetentionConfig = RetentionConfig()


class Ingress:
    """Routes HTTP and handle calls to one :class:`JobService`."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        setup: IngressSetup,
        uploader: DeploymentHandle[Any],
        pools: dict[str, DeploymentHandle[Any]],
        webhooks: DeploymentHandle[Any] | None = None,
    ) -> None:
        """Connect to the store and start the event feed.

        Args:
            setup: configs.
            uploader: the Uploader deployment.
            pools: the worker deployments by pool. They are bound here only to be part of the application: work reaches them through
                the job store, and a call would wake a pool that sleeps.
            webhooks: the deployment that delivers them, bound here for the same reason; None where no secret signs.
        """
        self._setup = setup
        self._pools = pools
        self._webhooks = webhooks
        api = setup.api
        self._signer = LinkSigner(read_keys(), api.signed_link_s) if api.signed_links else None
        self._links = Links((api.public_base_url or "").rstrip("/"), api.files_url, self._signer)
        await ensure_store(setup.store)
        store = StoreHandle()
        uploads = UploaderHandle(uploader)
        objects = build_object_store(setup.storage)
        await objects.check(expected=await uploads.identity())
        self._feed = EventFeed(store)
        self._feed.start()
        self._previews = PreviewFeed(store)
        self._previews.start()
        self._hooks = WebhookDesk(store, GuardedFetcher(setup.fetch).check_url, setup.webhook_secrets)
        check_url = InputSources(setup.fetch).check_url
        look = partial(check_header, limits=setup.media)
        intake = MediaIntake(store, uploads, upload_stream, check_url, setup.intake, SystemClock(), look)
        self._object_watch = ObjectStoreWatch(setup.storage.provider, uploads.identity)
        self._object_watch.start()
        self._janitor = Janitor(store, uploads, setup.retention)
        self._janitor.start()
        self._direct = DirectUploads(store, uploads, objects, setup.intake, SystemClock())
        await store.configure_backends(setup.comfyui.specs())
        descriptions = Descriptions(store, setup.comfyui.client, setup.comfyui.info_fresh_s)
        catalogue = WorkflowCatalogue(setup.workflows, store)
        managed = setup.comfyui.managed
        planner = ComfyPlanner(catalogue, descriptions, intake, frozenset(managed.tags) if managed.enabled else None)
        servers = ComfyServers(descriptions, setup.comfyui.client, starts_own=managed.enabled)
        self._desk = ComfyDesk(catalogue, descriptions, planner, store, servers, AllowList.parse(setup.fetch.allow))
        room = DiskFloor(setup.api.data_dir, setup.service.min_free_bytes)
        self._service = JobService(
            store=store,
            feed=self._feed,
            previews=self._previews,
            intake=intake,
            uploader=uploads,
            reader=objects,
            capabilities=self._capabilities,
            planners={
                "comfyui": planner,
                "face2face": Face2FacePlanner(intake, setup.face2face_engines, setup.face2face_auto),
            },
            check_room=room.check,
            check_webhook=self._hooks.check,
            config=setup.service,
        )
        anchors = setup.marking.trust_anchors.read_text("utf-8") if setup.marking.trust_anchors else ""
        self._verification = Verification(partial(inspect, anchors=anchors), setup.api.work_root, setup.marking.verify_bytes)
        styles = StyleBook(setup.workflows / "styles", planner)
        self._drawing = DrawingDesk(
            DrawingParts(
                store=store,
                sessions=store,
                feed=self._feed,
                previews=self._previews,
                uploader=uploads,
                reader=objects,
                styles=styles,
                binder=SketchBinder(styles, planner),
                limits=setup.media,
                check_room=room.check,
                config=setup.drawing,
            )
        )
        self._drawing.start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the HTTP application in the replica, from what the constructor made."""
        dialects = build_dialects(self._setup.dialects)
        return create_api(
            self._service,
            self._setup.api,
            comfy=self._desk,
            drawing=self._drawing,
            hooks=self._hooks,
            dialects=dialects,
            verification=self._verification,
            signer=self._signer,
            direct=self._direct,
            object_watch=self._object_watch,
        )

    async def __del__(self) -> None:  # Serve awaits it when it stops the replica
        await self._object_watch.close()
        await self._janitor.close()
        await self._drawing.close()
        await self._previews.close()
        await self._feed.close()

    async def submit(self, request: JsonObject, idempotency_key: str | None = None) -> JsonObject:
        """Accept a job, given the body of ``POST /v1/jobs``; answered when it is on disk.

        Raises:
            ServiceError: as ``POST /v1/jobs`` answers it, with the same ``code``.
        """
        parsed = parse_job_request(request)
        submission = await self._service.submit(parsed.to_spec(), parsed.to_options(), idempotency_key=idempotency_key)
        return self._shown(submission.job)

    async def get(self, job_id: str, wait_s: float = 0.0) -> JsonObject:
        """Read a job, waiting up to ``wait_s`` for its end."""
        return self._shown(await self._service.get(job_id, wait_s=wait_s))

    async def list_jobs(self, limit: int = 50, cursor: str | None = None) -> JsonObject:
        """List jobs, newest first."""
        page = await self._service.list_jobs(JobQuery(limit=limit, cursor=cursor))
        return {"jobs": [self._shown(job) for job in page.jobs], "next_cursor": page.next_cursor}

    async def cancel(self, job_id: str) -> JsonObject:
        """Cancel a job."""
        return self._shown(await self._service.cancel(job_id))

    async def watch(self, job_id: str, after: str | None = None) -> AsyncIterator[JsonObject]:
        """Stream a job's events until its end; call with ``handle.options(stream=True)``."""
        async for event in self._service.watch([job_id], after=EventId.parse(after) if after else None):
            yield EventView.of(event).model_dump(mode="json")

    async def _capabilities(self) -> Capabilities:
        return self._setup.capabilities.model_copy(update={"backends": await self._desk.backend_infos()})

    def _shown(self, job: Job) -> JsonObject:
        return JobView.of(job, self._links).model_dump(mode="json")
