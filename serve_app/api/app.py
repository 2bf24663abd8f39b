"""The HTTP application: routes, errors, limits and pages put together. Knows a :class:`JobService`, not where it runs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.routing import APIRoute

from deployments.comfyui_bridge.desk import ComfyDesk
from deployments.drawing.desk import DrawingDesk
from deployments.jobs.direct_uploads import DirectUploads
from deployments.jobs.service import JobService
from deployments.jobs.store_watch import ObjectStoreWatch
from deployments.jobs.verification import Verification
from deployments.jobs.webhook_desk import WebhookDesk
from serve_app.api import admin, backends, direct_uploads, events, files, jobs, references, system, verify, webhooks, workflows
from serve_app.api.config import ApiConfig
from serve_app.api.dialect import Dialect
from serve_app.api.errors import install_error_handlers
from serve_app.api.limits import BodyLimit
from serve_app.api.openapi import install_openapi
from serve_app.api.origins import OriginCheck
from serve_app.api.signing import LinkSigner
from serve_app.web.pages import install_pages

FORM_OVERHEAD_BYTES = 64 * 1024  # boundaries, part headers and small fields around an uploaded file
TAKES_NO_BODY = re.compile(f"{jobs.TAKES_NO_BODY.pattern}|{backends.TAKES_NO_BODY.pattern}|{webhooks.TAKES_NO_BODY.pattern}")


def create_api(
    service: JobService,
    config: ApiConfig,
    comfy: ComfyDesk | None = None,
    dialects: Sequence[Dialect] = (),
    drawing: DrawingDesk | None = None,
    verification: Verification | None = None,
    hooks: WebhookDesk | None = None,
    signer: LinkSigner | None = None,
    direct: DirectUploads | None = None,
    object_watch: ObjectStoreWatch | None = None,
) -> FastAPI:
    """Return the application that serves ``service``; the caller starts and closes the service's feeds.

    Args:
        service: of jobs.
        config: addresses and limits.
        comfy: workflows and backends; None when the installation runs none, which the routes about them say then.
        dialects: of older services, which are answered too.
        drawing: sessions of people who draw; None as with ``comfy``.
        verification: looks at the marks of files; None as with ``comfy``.
        hooks: deliveries of webhooks; None as with ``comfy``.
        direct: uploads past this service.
        object_watch: knows whether the object store is well; None where nobody looks.
        signer: of links to files; None when they need no signature.
    """
    app = build_app(config, dialects)
    app.state.service = service
    app.state.comfy = comfy
    app.state.drawing = drawing
    app.state.verification = verification
    app.state.hooks = hooks
    app.state.signer = signer
    app.state.direct = direct
    app.state.object_watch = object_watch
    return app


def build_app(config: ApiConfig, dialects: Sequence[Dialect] = ()) -> FastAPI:
    """Return the application without a service: enough to describe itself."""
    app = FastAPI(
        title=config.title,
        version=config.version,
        openapi_url=None,  # the document is served by openapi.py
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_name_of,
        strict_content_type=False,  # clients of older services leave it out; our own routes ask for it by require_json
    )
    app.state.config = config
    for router in (
        jobs.router,
        references.router,
        events.router,
        files.router,
        direct_uploads.router,
        verify.router,
        workflows.router,
        admin.router,
        backends.router,
        webhooks.router,
        system.router,
    ):
        app.include_router(router)
    for dialect in dialects:
        for router in dialect.routers:
            app.include_router(router)
        for name, value in dialect.state.items():
            setattr(app.state, name, value)
    _install_middleware(app, config, dialects)
    install_error_handlers(app)
    install_openapi(app, dialects)
    install_pages(app)
    return app


def _install_middleware(app: FastAPI, config: ApiConfig, dialects: Sequence[Dialect]) -> None:
    uploads = frozenset({files.PATH, verify.PATH}).union(*(dialect.uploads for dialect in dialects))
    limits = dict.fromkeys(uploads, config.max_upload_bytes + FORM_OVERHEAD_BYTES)
    app.add_middleware(BodyLimit, default_bytes=config.max_body_bytes, streams=limits, without_body=TAKES_NO_BODY)
    app.add_middleware(OriginCheck, hosts=config.trusted_hosts(), origins=config.trusted_origins())  # the last one added is asked first
    for dialect in dialects:
        for middleware in dialect.outermost:
            app.add_middleware(middleware.cls, *middleware.args, **middleware.kwargs)


def _name_of(route: APIRoute) -> str:
    return route.name  # operation ids that read well in generated clients: create_job, not create_job_v1_jobs_post
