"""Servers that mean harm: each answers the same raw bytes, or a stream of them, whatever it is asked.

An ``Answer`` is a list of pieces; ``None`` is silence until the client goes, and ``ENDLESS`` sends the piece behind it until then.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import zlib
from dataclasses import dataclass, field
from typing import Self

from PIL import Image

from tests.unit.hostile.urls import PUBLIC

ENDLESS = object()
SLOWLY = object()  # as ENDLESS, a piece at a time
MOST_BYTES = 64 * 2**20  # what an endless answer sends at most, so that a broken client cannot fill the machine
Answer = list[object]


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((32, 32), 60).save(buffer, "PNG")
    return buffer.getvalue()


PNG = _png()


def head(status: str = "200 OK", *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("utf-8", "surrogateescape")


def sized(body: bytes, *headers: str, length: object = None) -> bytes:
    return head("200 OK", f"Content-Length: {len(body) if length is None else length}", *headers) + body


def moved(location: str, status: str = "302 Found") -> bytes:
    return head(status, f"Location: {location}", "Content-Length: 0")


CHUNKED = head("200 OK", "Transfer-Encoding: chunked")
HTML = b"<!DOCTYPE html><p>Sign in"
PLAYLIST = b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1/a.ts\n"

SERVERS: dict[str, Answer] = {
    # too long, too slow
    "endless-body": [head(), PNG, ENDLESS, bytes(65536)],
    "endless-chunks": [CHUNKED, b"%x\r\n%s\r\n" % (len(PNG), PNG), ENDLESS, b"4000\r\n" + bytes(0x4000) + b"\r\n"],
    "endless-noise": [head(), ENDLESS, b"noise" * 1000],
    "endless-headers": [b"HTTP/1.1 200 OK\r\n", ENDLESS, b"A: b\r\n" * 1000],
    "endless-header": [b"HTTP/1.1 200 OK\r\nA: ", ENDLESS, b"a" * 65536],
    "endless-status-line": [b"HTTP/1.1 200 ", ENDLESS, b"a" * 65536],
    "endless-continues": [ENDLESS, head("100 Continue")],
    "endless-hints": [ENDLESS, head("103 Early Hints", "Link: <http://127.0.0.1/>")],
    "endless-chunk-extension": [CHUNKED, b"5;", ENDLESS, b"a" * 65536],
    "endless-chunk-size": [CHUNKED, ENDLESS, b"0" * 65536],
    "endless-trailers": [CHUNKED, b"%x\r\n%s\r\n0\r\n" % (len(PNG), PNG), ENDLESS, b"A: b\r\n" * 1000],
    "endless-redirect-body": [head("302 Found", "Location: /picture"), ENDLESS, bytes(65536)],
    "endless-error-body": [head("404 Not Found"), ENDLESS, bytes(65536)],
    "slow-body": [head(), SLOWLY, b"x"],
    "slow-head": [b"HTTP/1.1 200 OK\r\nA: ", SLOWLY, b"x"],
    "silent": [None],
    "silent-in-head": [b"HTTP/1.1 200 OK\r\n", None],
    "silent-in-body": [sized(PNG, length=100_000), None],
    "huge-claim": [sized(PNG, length=10**12), None],
    # bodies that are not as long as they say
    "closes-at-once": [],
    "closes-in-head": [b"HTTP/1.1 200 OK\r\nA"],
    "closes-in-body": [sized(PNG, length=100_000)],
    "closes-in-chunk": [CHUNKED, b"ffff\r\n", PNG],
    "length-shorter": [sized(PNG, length=len(PNG) - 20)],
    "length-negative": [sized(PNG, length=-5)],
    "length-word": [sized(PNG, length="many")],
    "length-of-thirty-digits": [sized(PNG, length="9" * 30)],
    "length-twice": [sized(PNG, "Content-Length: 7")],
    "length-and-chunks": [sized(b"0\r\n\r\n", "Transfer-Encoding: chunked", length=900)],
    "chunk-negative": [CHUNKED, b"-5\r\nabcde\r\n0\r\n\r\n"],
    "chunk-of-exabytes": [CHUNKED, b"fffffffffffffffff\r\n", PNG],
    "chunk-size-word": [CHUNKED, b"many\r\n", PNG],
    "nothing": [sized(b"")],
    # not HTTP, or hardly
    "speaks-ssh": [b"SSH-2.0-OpenSSH_9.2\r\n"],
    "speaks-redis": [b"-ERR unknown command\r\n"],
    "http-0-9": [PNG],
    "http-9": [b"HTTP/9.9 200 OK\r\n\r\n" + PNG],
    "status-word": [b"HTTP/1.1 fine\r\n\r\n" + PNG],
    "status-of-four-digits": [b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"],
    "header-without-colon": [b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n" + PNG],
    "header-with-nul": [b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n" + PNG],
    "header-of-a-megabyte": [sized(PNG, "A: " + "a" * 2**20)],
    "headers-by-the-thousand": [sized(PNG, *["A: b"] * 100_000)],
    "switches-protocols": [head("101 Switching Protocols", "Upgrade: h2c", "Connection: Upgrade"), None],
    # compressed
    "gzip-bomb": [sized(gzip.compress(bytes(5 * 2**20)), "Content-Encoding: gzip")],
    "gzip-upper-case": [sized(gzip.compress(PNG), "Content-Encoding: GZIP")],
    "gzip-twice": [sized(gzip.compress(gzip.compress(PNG)), "Content-Encoding: gzip, gzip")],
    "gzip-old-name": [sized(gzip.compress(PNG), "Content-Encoding: x-gzip")],
    "gzip-and-identity": [sized(gzip.compress(PNG), "Content-Encoding: identity, gzip")],
    "gzip-unsaid": [sized(gzip.compress(PNG))],
    "deflate": [sized(zlib.compress(PNG), "Content-Encoding: deflate")],
    "brotli": [sized(b"\x0b\x02\x80", "Content-Encoding: br")],
    "gzip-in-transfer": [head("200 OK", "Transfer-Encoding: gzip, chunked"), b"0\r\n\r\n"],
    # something else than media
    "page-as-png": [sized(HTML, "Content-Type: image/png")],
    "drawing": [sized(b'<svg xmlns="http://www.w3.org/2000/svg"/>', "Content-Type: image/svg+xml")],
    "document": [sized(b"%PDF-1.7\n", "Content-Type: image/png")],
    "archive": [sized(b"PK\x03\x04" + bytes(600), "Content-Type: image/png")],
    "playlist": [sized(PLAYLIST, "Content-Type: video/mp4")],
    "program": [sized(b"\x7fELF" + bytes(600), "Content-Type: image/png")],
    "refreshes-in-page": [sized(b'<html><meta http-equiv="refresh" content="0;url=http://127.0.0.1/">')],
    # statuses
    "no-content": [head("204 No Content")],
    "part-unasked": [head("206 Partial Content", "Content-Range: bytes 5-9/10", "Content-Length: 5") + b"abcde"],
    "not-modified": [head("304 Not Modified")],
    "asks-for-login": [head("401 Unauthorized", "WWW-Authenticate: Basic", "Content-Length: 0")],
    "asks-proxy-login": [head("407 Proxy Authentication Required", "Proxy-Authenticate: Basic", "Content-Length: 0")],
    "wait-an-hour": [head("503 Service Unavailable", "Retry-After: 3600", "Content-Length: 0")],
    "wait-forever": [head("429 Too Many Requests", "Retry-After: " + "9" * 400, "Content-Length: 0")],
    "wait-negative": [head("503 Service Unavailable", "Retry-After: -9", "Content-Length: 0")],
    "wait-nan": [head("503 Service Unavailable", "Retry-After: nan", "Content-Length: 0")],
    # redirects; those to inside places are every URL of the other list
    "moves-to-itself": [moved("/moves-to-itself")],
    "moves-nowhere": [head("302 Found", "Content-Length: 0")],
    "moves-to-nothing": [moved("")],
    "moves-four-times": [moved("/moves-three-times")],
    "moves-three-times": [moved("/moves-twice", "307 Temporary Redirect")],
    "moves-twice": [moved("/moves-once", "308 Permanent Redirect")],
    "moves-once": [moved("/picture", "301 Moved Permanently")],
    "moves-to-a-megabyte": [moved("/" + "a" * 2**20)],
    "moves-to-broken-bytes": [moved("/\udcff\udcfe")],
    "moves-by-two-locations": [head("302 Found", "Location: /picture", "Location: http://127.0.0.1/", "Content-Length: 0")],
    "says-use-proxy": [moved("http://127.0.0.1/", "305 Use Proxy")],
    "says-choose": [moved("http://127.0.0.1/", "300 Multiple Choices")],
    # odd, and harmless
    "picture": [sized(PNG, "Content-Type: image/png")],
    "picture-as-text": [sized(PNG, "Content-Type: text/html")],
    "picture-with-refresh": [sized(PNG, "Refresh: 0; url=http://127.0.0.1/", "Link: <http://127.0.0.1/>; rel=preload")],
    "picture-with-alt-svc": [sized(PNG, 'Alt-Svc: h2="127.0.0.1:80"', "Set-Cookie: spy=1")],
    "picture-after-hints": [head("103 Early Hints") * 3 + sized(PNG)],
    "picture-and-more": [sized(PNG) + head() + HTML],
}
HELPERS: dict[str, Answer] = {"busy": [head("503 Service Unavailable", "Content-Length: 0")]}


@dataclass
class HostileServer:
    """Answers on ``PUBLIC``, each path as the table says, and ``/to/<n>`` with the n-th of ``locations``."""

    locations: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, PUBLIC, 0, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.requests.append(request)
            await self._send(self._answer(request.split(" ")[1].partition("?")[0]), reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() > MOST_BYTES else writer.close()

    def _answer(self, path: str) -> Answer:
        name = path.removeprefix("/").partition("%0")[0].partition("%FF")[0]
        if name.startswith("to/"):
            return [moved(self.locations[name.removeprefix("to/")])]
        return (SERVERS | HELPERS).get(name, [head("404 Not Found", "Content-Length: 0")])

    async def _send(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        again: object = None
        for piece in answer:
            if piece in (ENDLESS, SLOWLY):
                again = piece
            elif piece is None:
                await reader.read()
            elif isinstance(piece, bytes):
                writer.write(piece)
                await writer.drain()
                sent = len(piece)
                while again is not None and sent < MOST_BYTES and not reader.at_eof():
                    if again is SLOWLY:
                        await asyncio.sleep(0.02)
                    writer.write(piece)
                    await writer.drain()
                    sent += len(piece)
                assert sent < MOST_BYTES, "the client took whatever came"
