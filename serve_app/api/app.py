"""The HTTP application: routes, errors, limits and pages put together. Knows a :class:`JobService`, not where it runs."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from deployments.jobs.service import JobService
from serve_app.api import admin, events, files, jobs, system
from serve_app.api.config import ApiConfig
from serve_app.api.errors import install_error_handlers
from serve_app.api.limits import BodyLimit
from serve_app.api.openapi import install_openapi
from serve_app.api.origins import OriginCheck
from serve_app.web.pages import install_pages

FORM_OVERHEAD_BYTES = 64 * 1024  # boundaries, part headers and small fields around an uploaded file


def create_api(service: JobService, config: ApiConfig) -> FastAPI:
    """Return the application that serves ``service``; the caller starts and closes the service's event feed."""
    app = build_app(config)
    app.state.service = service
    return app


def build_app(config: ApiConfig) -> FastAPI:
    """Return the application without a service: enough to describe itself."""
    app = FastAPI(
        title=config.title,
        version=config.version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_name_of,
    )
    app.state.config = config
    for router in (jobs.router, events.router, files.router, admin.router, system.router):
        app.include_router(router)
    limits = {files.PATH: config.max_upload_bytes + FORM_OVERHEAD_BYTES}
    app.add_middleware(BodyLimit, default_bytes=config.max_body_bytes, streams=limits, without_body=jobs.TAKES_NO_BODY)
    app.add_middleware(OriginCheck, hosts=config.trusted_hosts(), origins=config.trusted_origins())  # the last one added is asked first
    install_error_handlers(app)
    install_openapi(app)
    install_pages(app)
    return app


def _name_of(route: APIRoute) -> str:
    return route.name  # operation ids that read well in generated clients: create_job, not create_job_v1_jobs_post
