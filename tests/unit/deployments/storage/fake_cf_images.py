"""Cloudflare Images for tests, written from its documentation: the answers' form, what it refuses, and faults made on purpose."""

import io
import json
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from aiohttp import web
from PIL import Image

ACCOUNT = "023e105f4ecef8ad9ca31a8372d0c353"
ACCOUNT_HASH = "Vi7wi5KSItxGFsWRG2Us6Q"
TOKEN = "knows-everything"
MAX_BYTES, MAX_METADATA_BYTES, MAX_ID = 10_000_000, 1024, 1024
MAX_SIDE, MAX_AREA, MAX_ANIMATED_AREA = 12_000, 100_000_000, 50_000_000
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PATH = re.compile(r"/client/v4/accounts/(?P<account>[^/]+)/images/v1(/(?P<id>[^/]+)(?P<blob>/blob)?)?")


@dataclass
class FakeCloudflare:
    """The server. Its counters say how many requests meet each fault."""

    url: str = ""
    pictures: dict = field(default_factory=dict)  # id -> (bytes, metadata)
    uploads: int = 0  # calls that came whole
    overloaded: int = 0  # so many requests get 503
    limited: int = 0  # so many requests get 429
    retry_after: str = "0"
    cut_uploads: int = 0  # of so many uploads a little is read, and the connection closed
    lost_answers: int = 0  # so many uploads are done, and the connection closed
    cut_downloads: int = 0  # of so many pictures half is sent
    reencodes: bool = False  # gives back other bytes than it was given
    refuses: tuple = ()  # status and code of its answer to every upload
    full: bool = False  # the account has reached its limit

    async def handle(self, request):
        asked = PATH.fullmatch(request.raw_path.partition("?")[0])
        refused = self._refuse(request, asked)
        if refused is not None:
            return refused
        if request.method == "POST":
            return await self._upload(request)
        key = unquote(asked["id"] or "")
        if key not in self.pictures:
            return failure(404, 5404, "Image not found")
        if request.method == "DELETE":
            del self.pictures[key]
            return success({})
        return await self._blob(request, key) if asked["blob"] else success(self._describe(key))

    def _refuse(self, request, asked):
        if self.overloaded:
            self.overloaded -= 1
            return failure(503, 10013, "Service unavailable")
        if self.limited:
            self.limited -= 1
            return failure(429, 971, "Please wait and consider throttling your request speed", {"Retry-After": self.retry_after})
        token = request.headers.get("Authorization", "")
        if not token.startswith("Bearer "):
            return failure(400, 6003, "Invalid request headers")
        if token != f"Bearer {TOKEN}":
            return failure(403 if "known" in token else 401, 10000, "Authentication error")
        if asked is None or asked["account"] != ACCOUNT:
            return failure(404, 7003, "Could not route to that path, perhaps your object identifier is invalid?")
        return None

    async def _upload(self, request):
        if self.cut_uploads:
            self.cut_uploads -= 1
            await request.content.read(100)
            request.transport.abort()
            return web.Response()
        form = await request.post()
        self.uploads += 1
        key, metadata, data = form.get("id", ""), form.get("metadata", "{}"), form["file"].file.read()
        refused = failure(self.refuses[0], self.refuses[1], "Refused") if self.refuses else self._look_at(key, metadata, data, form)
        if refused is not None:
            return refused
        self.pictures[key] = (data, json.loads(metadata))
        if self.lost_answers:
            self.lost_answers -= 1
            request.transport.abort()
        return success(self._describe(key))

    def _look_at(self, key, metadata, data, form):
        if not 0 < len(key) <= MAX_ID or UUID.fullmatch(key) or key != key.strip("/") or form.get("requireSignedURLs") == "true":
            return failure(400, 5400, "Bad request: custom ID is invalid")
        if len(metadata.encode()) > MAX_METADATA_BYTES or not isinstance(json.loads(metadata), dict):
            return failure(400, 5400, "Bad request: metadata is invalid")
        if self.full:
            return failure(403, 5453, "The given account has reached a service limit")
        if key in self.pictures:
            return failure(409, 5409, "Resource already exists")
        return failure(413, 5413, "The image is too large") if len(data) > MAX_BYTES else _look_at_picture(data)

    async def _blob(self, request, key):
        data = self.pictures[key][0] + (b"changed" if self.reencodes else b"")
        headers = {"Content-Type": "image/png", "Content-Length": str(len(data))}
        if not self.cut_downloads:
            return web.Response(body=data, headers=headers)
        self.cut_downloads -= 1
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        request.transport.abort()
        return response

    def _describe(self, key):
        return {
            "id": key,
            "filename": key.rpartition("/")[2],
            "meta": self.pictures[key][1],
            "uploaded": "2026-11-27T09:51:09.559Z",
            "requireSignedURLs": False,
            "variants": [f"https://imagedelivery.net/{ACCOUNT_HASH}/{quote(key)}/{variant}" for variant in ("thumbnail", "public")],
        }


def success(result):
    return web.json_response({"result": result, "result_info": None, "success": True, "errors": [], "messages": []})


def failure(status, code, message, headers=None):
    body = {"result": None, "success": False, "errors": [{"code": code, "message": message}], "messages": []}
    return web.json_response(body, status=status, headers=headers)


def _look_at_picture(data):
    try:
        with Image.open(io.BytesIO(data)) as picture:
            (width, height), frames = picture.size, getattr(picture, "n_frames", 1)
    except OSError:
        return failure(415, 5455, "Unsupported image format")
    too_large = max(width, height) > MAX_SIDE or width * height > MAX_AREA or (frames > 1 and width * height * frames > MAX_ANIMATED_AREA)
    return failure(400, 5443, "The image has too many pixels") if too_large else None
