"""HTTP routes of files: upload and view."""

from __future__ import annotations

import asyncio
import io
import json
import mimetypes
from pathlib import Path

from aiohttp import web
from aiohttp.web_request import FileField
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deployments.fake_comfyui.backend import Backend
from deployments.fake_comfyui.files import OutsideFolder, split_annotation

ACTIVE_TYPES = {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"}  # sent as plain bytes

FormFields = dict[str, str | bytes | bytearray | FileField]


class FileRoutes:
    """The handlers."""

    def __init__(self, backend: Backend) -> None:
        self._files = backend.site.files

    def routes(self) -> list[web.RouteDef]:
        """Return the routes without their twins under /api."""
        return [
            web.post("/upload/image", self.upload_image),
            web.post("/upload/mask", self.upload_mask),
            web.get("/view", self.view),
        ]

    async def upload_image(self, request: web.Request) -> web.Response:
        """Store a file, whatever it holds, under its name or the next free one."""
        form, upload = await _read_upload(request)
        return await asyncio.to_thread(self._store, form, upload, upload.file.read())

    async def upload_mask(self, request: web.Request) -> web.Response:
        """Store an earlier picture with the alpha channel of the uploaded one."""
        form, upload = await _read_upload(request)
        original = json.loads(str(form.get("original_ref", "{}")))
        path = self._find(original.get("filename", ""), original.get("type", "output"), original.get("subfolder", ""))
        if not path.is_file():
            raise web.HTTPNotFound
        data = await asyncio.to_thread(_with_alpha_of, path, upload.file.read())
        return await asyncio.to_thread(self._store, form, upload, data)

    async def view(self, request: web.Request) -> web.StreamResponse:
        """Send a file, or a picture made of it."""
        query = request.query
        path = self._find(query.get("filename", ""), query.get("type", "output"), query.get("subfolder", ""))
        if not path.is_file():
            return web.Response(status=404)
        headers = {"Content-Disposition": f'filename="{path.name}"'}
        if "preview" in query:
            data, media_type = await asyncio.to_thread(_encode_smaller, path, query["preview"], query.get("channel", ""))
            return web.Response(body=data, content_type=media_type, headers=headers)
        if query.get("channel") in {"rgb", "a"}:
            data = await asyncio.to_thread(_encode_channel, path, query["channel"])
            return web.Response(body=data, content_type="image/png", headers=headers)
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        headers["Content-Type"] = "application/octet-stream" if media_type in ACTIVE_TYPES else media_type
        return web.FileResponse(path, headers=headers)

    def _find(self, name: str, folder: str, subfolder: str) -> Path:
        plain, annotated = split_annotation(name)
        if not plain:
            raise web.HTTPNotFound(text="")
        if plain.startswith("/") or ".." in plain:
            raise web.HTTPBadRequest(text="")
        try:
            return self._files.inside(annotated or folder, subfolder, Path(plain).name)
        except KeyError as error:
            raise web.HTTPBadRequest(text="") from error
        except OutsideFolder as error:
            raise web.HTTPForbidden(text="") from error

    def _store(self, form: FormFields, upload: FileField, data: bytes) -> web.Response:
        folder, subfolder = str(form.get("type", "input")), str(form.get("subfolder", ""))
        try:
            path = self._files.inside(folder, subfolder, upload.filename)
        except (KeyError, OutsideFolder) as error:
            raise web.HTTPBadRequest(text="") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        if form.get("overwrite") not in {"true", "1"}:
            path = _free_name(path, data)
        path.write_bytes(data)
        return web.json_response({"name": path.name, "subfolder": subfolder, "type": folder})


async def _read_upload(request: web.Request) -> tuple[FormFields, FileField]:
    form = dict(await request.post())
    upload = form.get("image")
    if not isinstance(upload, FileField) or not upload.filename:
        raise web.HTTPBadRequest(text="")
    return form, upload


def _free_name(path: Path, data: bytes) -> Path:
    """Return the path, or ``name (1).ext`` and so on while other bytes lie there."""
    candidate, count = path, 0
    while candidate.exists() and candidate.read_bytes() != data:
        count += 1
        candidate = path.with_name(f"{path.stem} ({count}){path.suffix}")
    return candidate


def _with_alpha_of(path: Path, mask: bytes) -> bytes:
    chunks = PngInfo()
    with Image.open(path) as original, Image.open(io.BytesIO(mask)) as alpha:
        for name, value in getattr(original, "text", {}).items():
            chunks.add_text(name, value)
        picture = original.convert("RGBA")
        picture.putalpha(alpha.convert("RGBA").getchannel("A"))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=4, pnginfo=chunks)
    return buffer.getvalue()


def _encode_smaller(path: Path, preview: str, channel: str) -> tuple[bytes, str]:
    """Encode as ``preview`` says, such as ``webp;50``."""
    name, _, quality = preview.partition(";")
    name = "webp" if name not in {"webp", "jpeg"} or "a" in channel else name
    buffer = io.BytesIO()
    with Image.open(path) as image:
        picture = image.convert("RGB") if name == "jpeg" or channel == "rgb" else image
        picture.save(buffer, format=name, quality=int(quality) if quality.isdigit() else 90)
    return buffer.getvalue(), f"image/{name}"


def _encode_channel(path: Path, channel: str) -> bytes:
    """Encode as PNG: without alpha for ``rgb``, black under the alpha channel for ``a``."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        if channel == "rgb":
            picture = image.convert("RGB")
        else:
            picture = Image.new("RGBA", image.size)
            picture.putalpha(image.convert("RGBA").getchannel("A"))
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
