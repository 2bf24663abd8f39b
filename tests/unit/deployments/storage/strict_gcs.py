"""Google Cloud Storage for tests: an emulator that holds the objects, and in front of it what the emulator does not do.

That is TLS, tokens for a service account whose signature is checked, preconditions, the limits of ``compose``, and what the client of this
project promises of itself: every write has a precondition and a CRC32C, and every read of an object's bytes asks for a range. What breaks
the promise is answered with 400. Faults are made here too.
"""

import asyncio
import io
import json
import uuid
from dataclasses import dataclass, field
from urllib.parse import unquote, urlencode

from aiohttp import ClientSession, web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

COMPOSED_AT_ONCE = 32
TOKEN_AUDIENCE = "https://oauth2.googleapis.com/token"  # whatever the address is at which tokens are asked for
HOP_BY_HOP = {"transfer-encoding", "connection", "date", "server", "host", "content-length"}


class ServiceAccount:
    """Somebody who may use the store."""

    def __init__(self):
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.email = "atelier@tests.iam.gserviceaccount.com"
        public = self._key.public_key()
        self.public_pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def key_file(self, server):
        """The text of the key file that a client is given."""
        pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return json.dumps(
            {
                "type": "service_account",
                "project_id": "tests",
                "private_key_id": "1",
                "private_key": self._key.private_bytes(serialization.Encoding.PEM, pkcs8, plain).decode(),
                "client_email": self.email,
                "client_id": "1",
                "token_uri": f"{server}/token",
            }
        )


@dataclass
class StrictGcs:
    """The server. Its counters say how many requests meet each fault."""

    emulator: str  # URL
    account: ServiceAccount
    session: ClientSession
    url: str = ""
    tokens: set = field(default_factory=set)
    requests: list = field(default_factory=list)  # (method, path)
    forbidden: bool = False
    clock_is_wrong: bool = False
    overloaded: int = 0  # so many requests get 503
    cut_uploads: int = 0  # of so many uploads a little is read, and the connection closed
    lost_answers: int = 0  # so many writes are done, and the connection closed
    cut_downloads: int = 0  # of so many answers half is sent
    flipped: int = 0  # in so many answers one byte is another
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    connections: set = field(default_factory=set)

    def hang_up(self):
        """End the connections that clients keep: TLS would wait for their farewell."""
        for connection in self.connections:
            connection.abort()

    async def handle(self, request):
        self.connections.add(request.transport)
        if request.path == "/token":
            return await self._token(request)
        self.requests.append((request.method, request.path))
        if self.overloaded:
            self.overloaded -= 1
            return _error(503, "Service Unavailable", "backendError")
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return _error(401, "Invalid Credentials", "authError")
        if self.forbidden:
            return _error(403, f"{self.account.email} does not have storage.objects.create access.", "forbidden")
        if request.method in {"POST", "DELETE"}:
            return await self._write(request)
        return await self._read(request)

    async def _token(self, request):
        form = await request.post()
        try:
            claims = jwt.decode(form["assertion"], certs=self.account.public_pem, audience=TOKEN_AUDIENCE)
        except ValueError:
            return web.json_response({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, status=400)
        if self.clock_is_wrong:
            text = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
            return web.json_response({"error": "invalid_grant", "error_description": text}, status=400)
        assert claims["iss"] == self.account.email
        token = uuid.uuid4().hex
        self.tokens.add(token)
        return web.json_response({"access_token": token, "expires_in": 3600, "token_type": "Bearer"})

    async def _write(self, request):
        if request.path.startswith("/upload") and self.cut_uploads:
            self.cut_uploads -= 1
            await request.content.read(1000)
            request.transport.abort()
            return web.Response()
        body = await request.read()
        async with self.writing:  # the emulator compares nothing, so nobody may come between
            refused = await self._refuse(request, body)
            response = refused or await self._ask(request, body)
        if refused is None and self.lost_answers:
            self.lost_answers -= 1
            request.transport.abort()
        return response

    async def _refuse(self, request, body):
        """The answer to a write that Google, or this project's own rule, does not let through."""
        bucket, name = _target_of(request)
        sources = []
        if request.path.startswith("/upload"):
            described = json.loads(body.partition(b"\r\n\r\n")[2].partition(b"\r\n--")[0])
            name = described["name"]
            if "crc32c" not in described:
                return _error(400, "this server wants a CRC32C with every upload", "invalid")
        elif request.path.endswith("/compose"):
            sources = json.loads(body)["sourceObjects"]
            if not 1 <= len(sources) <= COMPOSED_AT_ONCE:
                return _error(400, f"The number of source components provided ({len(sources)}) exceeds the maximum", "invalid")
        if "ifGenerationMatch" not in request.query:
            return _error(400, "this server wants a precondition with every write", "invalid")
        listed = await self.objects(bucket)
        if listed is None:
            return _error(404, "The specified bucket does not exist.", "notFound")
        found = {one["name"]: one["generation"] for one in listed}
        for source in sources:
            if source["name"] not in found:
                return _error(404, f"No such object: {bucket}/{source['name']}", "notFound")
            if str(source["objectPreconditions"]["ifGenerationMatch"]) != found[source["name"]]:
                return _error(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")
        if request.method == "DELETE" and name not in found:
            return _error(404, f"No such object: {bucket}/{name}", "notFound")
        if request.query["ifGenerationMatch"] != found.get(name, "0"):
            return _error(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")
        return None

    async def _read(self, request):
        bucket, name = _target_of(request)
        is_media = request.query.get("alt") == "media"
        found = await self.objects(bucket)
        if found is None:
            return _error(404, "The specified bucket does not exist.", "notFound")
        generations = {one["name"]: one["generation"] for one in found}
        if name is not None and name not in generations:
            return _error(404, f"No such object: {bucket}/{name}", "notFound")
        if is_media and "Range" not in request.headers:
            return _error(400, "this server gives an object's bytes by ranges alone", "invalid")
        if "ifGenerationMatch" in request.query and request.query["ifGenerationMatch"] != generations[name]:
            return _error(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")
        response = await self._ask(request, b"")
        return await self._break(request, response) if is_media else response

    async def _break(self, request, response):
        data = response.body
        if self.flipped:
            self.flipped -= 1
            response.body = bytes([data[0] ^ 1]) + data[1:]
        elif self.cut_downloads and len(data) > 1000:
            self.cut_downloads -= 1
            half = web.StreamResponse(status=response.status, headers={**response.headers, "Content-Length": str(len(data))})
            await half.prepare(request)
            await half.write(data[: len(data) // 2])
            request.transport.close()
            return half
        return response

    async def _ask(self, request, body):
        headers = {name: value for name, value in request.headers.items() if name.lower() not in {*HOP_BY_HOP, "accept-encoding"}}
        async with self.session.request(request.method, self.emulator + request.raw_path, headers=headers, data=io.BytesIO(body)) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    async def make_bucket(self, name):
        async with self.session.post(f"{self.emulator}/storage/v1/b", json={"name": name, "location": "EUROPE-WEST4"}) as answer:
            assert answer.status == 200, await answer.text()

    async def objects(self, bucket):
        """What lies in a bucket; None where there is none."""
        async with self.session.get(f"{self.emulator}/storage/v1/b/{bucket}/o?{urlencode({'prefix': ''})}") as answer:
            return (await answer.json()).get("items", []) if answer.status == 200 else None

    async def names(self, bucket):
        return [one["name"] for one in await self.objects(bucket)]


def _target_of(request):
    """The bucket and the object that a request is about."""
    _, _, rest = request.raw_path.partition("?")[0].partition("/b/")
    bucket, _, rest = rest.partition("/")
    name = unquote(rest.removeprefix("o/").removesuffix("/compose")) if rest.startswith("o/") else None
    return bucket, name


def _error(status, message, reason):
    error = {"code": status, "message": message, "errors": [{"message": message, "domain": "global", "reason": reason}]}
    return web.json_response({"error": error}, status=status)
