"""The static pages: the landing page, the drawing page and the API's documentation. Nothing is loaded from another host."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

STATIC = Path(__file__).parent / "static"

STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Swagger UI and Redoc write style elements, use inline pictures and, Redoc for its search, a worker of its own making.
DOCUMENTATION = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


def install_pages(app: FastAPI) -> None:
    """Add the pages and their assets."""
    app.include_router(router)
    # Swagger UI and Redoc as the fastapi-offline distribution ships them.
    app.mount("/static/vendor", StaticFiles(directory=str(files("fastapi_offline") / "static")), name="vendor")
    app.mount("/static", StaticFiles(directory=STATIC), name="static")


@router.get("/")
async def show_landing_page() -> FileResponse:
    """Send the landing page."""
    return _page("index.html", STRICT)


@router.get("/draw")
async def show_drawing_page() -> FileResponse:
    """Send the page on which the picture follows the pen."""
    return _page("draw.html", STRICT)


@router.get("/docs")
async def show_swagger_ui() -> FileResponse:
    """Send the interactive documentation."""
    return _page("docs.html", DOCUMENTATION)


@router.get("/redoc")
async def show_redoc() -> FileResponse:
    """Send the documentation to read."""
    return _page("redoc.html", DOCUMENTATION)


def _page(name: str, policy: str) -> FileResponse:
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return FileResponse(STATIC / name, media_type="text/html; charset=utf-8", headers=headers)
