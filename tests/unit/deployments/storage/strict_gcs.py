"""Google Cloud Storage for tests: an emulator that holds the objects, and in front of it what the emulator does not do.

That is TLS, tokens for a service account whose signature is checked, preconditions, the limits of ``compose``, and what the client of this
project promises of itself: every write has a precondition and a CRC32C, and every read of an object's bytes asks for a range. What breaks
the promise is answered with 400. Faults are made here too.
"""

import asyncio
import hashlib
import io
import json
import uuid
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlencode

from aiohttp import ClientSession, web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
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

    def verify(self, signature, text):
        """Let pass what this account has signed."""
        self._key.public_key().verify(signature, text, padding.PKCS1v15(), hashes.SHA256())

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
    forbidden: bool = False
    clock_is_wrong: bool = False
    overloaded: int = 0  # so many requests get 503
    cut_uploads: int = 0  # of so many uploads a little is read, and the connection closed
    lost_answers: int = 0  # so many writes are done, and the connection closed
    cut_downloads: int = 0  # of so many answers half is sent
    flipped: int = 0  # in so many answers one byte is another
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def handle(self, request):
        if request.path == "/token":
            return await self._token(request)
        if "X-Goog-Signature" in request.query:
            return await self._signed(request)
        refused = self._turn_away(request)
        if refused is not None:
            await request.read()  # who is answered before it has sent all sees a connection that breaks
            return refused
        return await (self._write if request.method in {"POST", "DELETE"} else self._read)(request)

    def _turn_away(self, request):
        """The answer to a request that is not looked at."""
        if self.overloaded:
            self.overloaded -= 1
            return _error(503, "Service Unavailable", "backendError")
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return _error(401, "Invalid Credentials", "authError")
        if self.forbidden:
            return _error(403, f"{self.account.email} does not have storage.objects.create access.", "forbidden")
        return None

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

    async def _signed(self, request):
        """A request by a signed URL: https://cloud.google.com/storage/docs/authentication/canonical-requests."""
        query = dict(request.query)
        signature = bytes.fromhex(query.pop("X-Goog-Signature"))
        signed_headers = query["X-Goog-SignedHeaders"]
        headers = "".join(f"{name}:{request.headers.get(name, '')}\n" for name in signed_headers.split(";"))
        encoded = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(query.items()))
        path = request.raw_path.partition("?")[0]
        canonical = f"{request.method}\n{path}\n{encoded}\n{headers}\n{signed_headers}\nUNSIGNED-PAYLOAD"
        scope = query["X-Goog-Credential"].partition("/")[2]
        text = "\n".join(["GOOG4-RSA-SHA256", query["X-Goog-Date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
        try:
            self.account.verify(signature, text.encode())
        except InvalidSignature:
            return web.Response(status=403, text="<Error><Code>SignatureDoesNotMatch</Code></Error>", content_type="application/xml")
        body = await request.read()
        least, _, most = request.headers.get("x-goog-content-length-range", f"0,{len(body)}").partition(",")
        if not int(least) <= len(body) <= int(most):
            return web.Response(status=400, text="<Error><Code>EntityTooLarge</Code></Error>", content_type="application/xml")
        response = await self._ask(request, body)
        response.headers.update({"Content-Type": query["response-content-type"]} if "response-content-type" in query else {})
        return response

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
            if refused is None and "/rewriteTo/" in request.path:  # the emulator copies, and does not read what the copy shall be
                target = request.raw_path.partition("?")[0].partition("/rewriteTo")[2]
                await self.session.patch(f"{self.emulator}/storage/v1{target}", json=json.loads(body))
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
        elif "/rewriteTo/" in request.path:
            source, _, name = name.partition(f"/rewriteTo/b/{bucket}/o/")
            sources = [{"name": source, "objectPreconditions": {"ifGenerationMatch": request.query["ifSourceGenerationMatch"]}}]
        if "ifGenerationMatch" not in request.query:
            return _error(400, "this server wants a precondition with every write", "invalid")
        return await self._compare(request, bucket, name, sources)

    async def _compare(self, request, bucket, name, sources):
        """The answer to a write that meets another state than it expects."""
        listed = await self.objects(bucket)
        if listed is None:
            return _error(404, "The specified bucket does not exist.", "notFound")
        found = {one["name"]: one["generation"] for one in listed}
        needed = [source["name"] for source in sources] + ([name] if request.method == "DELETE" else [])
        missing = [one for one in needed if one not in found]
        if missing:
            return _error(404, f"No such object: {bucket}/{missing[0]}", "notFound")
        expected = [(request.query["ifGenerationMatch"], found.get(name, "0"))]
        expected += [(str(source["objectPreconditions"]["ifGenerationMatch"]), found[source["name"]]) for source in sources]
        if any(wanted != there for wanted, there in expected):
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
