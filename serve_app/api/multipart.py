"""A file out of a multipart/form-data body, as a stream: never whole in memory and never on this machine's disk."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request

from deployments.jobs.errors import InvalidInput, MediaTooLarge

FILE_FIELD = "file"
MAX_BOUNDARY_BYTES = 256  # the parser's limit; RFC 2046 allows 70
MAX_FIELD_BYTES = 64 * 1024  # of all text fields together: they are kept in memory


@dataclass(frozen=True, slots=True)
class IncomingFile:
    """The file of a form, while it arrives."""

    name: str
    media_type: str | None  # as declared
    chunks: AsyncIterator[bytes]  # read them to the end: what is wrong with the rest of the body shows there
    fields: Mapping[str, str]  # the text fields so far; whole once the chunks have been read, because a field may follow the file


async def read_file(request: Request, *names: str) -> IncomingFile:
    """Read a form up to its file.

    Args:
        request: whose body is read.
        names: of the field that holds the file, any of them; default: ``FILE_FIELD``.

    Raises:
        HTTPException: 415 for another content type, 400 for a body that is no multipart body or ends early.
        InvalidInput: no file in the form, or two.
        MediaTooLarge: text fields of more than ``MAX_FIELD_BYTES``.
    """
    form = _FileForm(_boundary(request), request.stream(), names or (FILE_FIELD,))
    name, media_type = await form.header()
    return IncomingFile(name, media_type, form.chunks(), form.fields)


def _boundary(request: Request) -> bytes:
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if media_type != b"multipart/form-data":
        raise HTTPException(415, "send the file as multipart/form-data: curl -F file=@portrait.jpg")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
        raise HTTPException(400, f"the Content-Type needs a boundary of at most {MAX_BOUNDARY_BYTES} bytes")
    return boundary


class _FileForm:
    """Drives the push parser: the file's bytes pass through, text fields are kept, files in other fields are skipped."""

    def __init__(self, boundary: bytes, body: AsyncIterator[bytes], names: Collection[str]) -> None:
        self.fields: dict[str, str] = {}
        self._names = names
        self._body = body
        self._found: tuple[str, str | None] | None = None
        self._in_file = False
        self._field: str | None = None  # the text field that is being read
        self._value = bytearray()
        self._room = MAX_FIELD_BYTES
        self._ended = False
        self._data: deque[bytes] = deque()  # of one chunk of the body at most
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    async def header(self) -> tuple[str, str | None]:
        """Return the file's name and declared media type, once they have come."""
        while self._found is None:
            if not await self._feed():
                raise InvalidInput(f"send one form field named {' or '.join(self._names)} with a file in it")
        return self._found

    async def chunks(self) -> AsyncIterator[bytes]:
        """Stream the file's bytes, to the end of the body."""
        more = True
        while more:
            while self._data:
                yield self._data.popleft()
            more = await self._feed()
        while self._data:
            yield self._data.popleft()

    async def _feed(self) -> bool:
        """Parse one more chunk of the body; False at its end."""
        chunk = await anext(self._body, b"")
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise HTTPException(400, f"the multipart body is malformed: {error}") from None
        if not chunk and not self._ended:
            raise HTTPException(400, "the multipart body ends early")
        return bool(chunk)

    def _on_part_begin(self) -> None:
        self._headers.clear()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name in self._names:
            self._begin_file(options.get(b"filename", b"").decode("utf-8", "replace"))
        elif b"filename" not in options:
            self._field = name

    def _begin_file(self, name: str) -> None:
        if self._found is not None:
            raise InvalidInput("one file a request: send the others by themselves")
        declared = self._headers.get(b"content-type")
        self._found = (name, declared.decode("latin-1") if declared else None)
        self._in_file = True

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._data.append(data[start:end])
        elif self._field is not None:
            self._room -= end - start
            if self._room < 0:
                raise MediaTooLarge(f"the text fields of a form have at most {MAX_FIELD_BYTES} bytes together")
            self._value += data[start:end]

    def _on_part_end(self) -> None:
        if self._field is not None:
            self.fields[self._field] = self._value.decode("utf-8", "replace")
        self._in_file, self._field, self._value = False, None, bytearray()

    def _on_end(self) -> None:
        self._ended = True
