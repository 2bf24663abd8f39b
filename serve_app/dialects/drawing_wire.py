"""Messages of the drawing WebSocket as they are sent: JSON that older clients know, and frames for those that asked for them.

A frame is the length of a JSON header in four bytes (big-endian), the header, and a picture; the same both ways.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.drawing.messages import Accepted, Completed, Failed, Message, Offer, Processing, Shown, Skipped
from deployments.drawing.sketches import decode_base64
from deployments.jobs.errors import InvalidInput
from deployments.jobs.model import JsonObject

MAX_HEADER_BYTES = 64 * 1024
MAX_SEQ = 2**53 - 1  # what JavaScript counts to
SAID_TO_ALL = (Processing, Completed, Failed)  # the rest is for clients that have said hello

Seq = Annotated[int, Field(ge=0, le=MAX_SEQ, strict=True)]


class Hello(BaseModel):
    """The first message of a client that wants more than JSON."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    type: Literal["hello"] = "hello"
    binary: bool = False  # frames both ways
    previews: bool = False  # pictures while the sampler works
    ack: bool = False  # each picture waits until the one before was acknowledged


class SketchHeader(BaseModel):
    """What goes with a sketch."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    style: Annotated[str, Field(max_length=100)] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    seq: Seq | None = None
    force: bool = False


class SketchUpdate(SketchHeader):
    """A sketch in JSON."""

    sketch_data: str


def parse_text(text: str, max_bytes: int) -> Hello | Offer | Literal["ack", "ping"]:
    """Read a text message.

    Raises:
        InvalidInput: it is none that we know; says what to send.
        MediaTooLarge: the sketch has too many bytes.
    """
    try:
        message = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        raise InvalidInput(
            'a message is a JSON object, such as {"type": "sketch_update", "sketch_data": "data:image/png;base64,…"}'
        ) from None
    kind = message.get("type") if isinstance(message, dict) else None
    try:
        match kind:
            case "sketch_update":
                update = SketchUpdate.model_validate(message)
                return _offer(update, decode_base64(update.sketch_data, max_bytes))
            case "hello":
                return Hello.model_validate(message)
            case "ack" | "ping":
                return "ack" if kind == "ack" else "ping"
            case _:
                raise InvalidInput("the type of a message is sketch_update, hello, ack or ping")
    except ValidationError as error:
        raise InvalidInput(_what_is_wrong(error)) from None


def parse_frame(frame: bytes) -> Offer:
    """Read a binary message.

    Raises:
        InvalidInput: no header, or not such a one.
    """
    size = int.from_bytes(frame[:4], "big")
    if len(frame) < 4 or size > min(MAX_HEADER_BYTES, len(frame) - 4):
        raise InvalidInput("a binary message is the length of a JSON header in four bytes (big-endian), the header, and a picture")
    try:
        header = SketchHeader.model_validate_json(frame[4 : 4 + size] or b"{}")
    except ValidationError as error:
        raise InvalidInput(_what_is_wrong(error)) from None
    return _offer(header, frame[4 + size :])


def to_frame(header: JsonObject, picture: bytes) -> bytes:
    """Return a binary message."""
    head = json.dumps(header).encode()
    return len(head).to_bytes(4, "big") + head + picture


def result_url(session_id: str, seq: int | None = None) -> str:
    """Return where the newest picture of a session is.

    With a number the address is another one for each picture: a browser shows a picture again, and does not ask, whose address a page
    has shown before.
    """
    return f"/api/result/{session_id}" + (f"?seq={seq}" if seq is not None else "")


def to_json(message: Message, session_id: str) -> JsonObject:
    """Return a message without its picture."""
    match message:
        case Processing(seq, progress):
            return {"status": "processing", "progress": progress} | _numbered(seq)
        case Accepted(seq):
            return {"status": "accepted", "seq": seq}
        case Skipped(seq, reason, newest_seq):
            return {"status": "skipped", "reason": reason, "newest_seq": newest_seq} | _numbered(seq)
        case Failed(text, code, seq, place):
            return {"status": "error", "message": text, "code": code} | _numbered(seq) | ({} if place is None else {"place": place})
        case Shown(seq, preview):
            return {"status": "preview", "seq": seq, "media_type": preview.media_type}
        case Completed(seq, job_id, picture):
            return {
                "status": "completed",
                "result_url": result_url(session_id),
                "seq": seq,
                "job_id": job_id,
                "file_id": picture.file_id,
                "media_type": picture.media_type,
            }


def with_preview(message: JsonObject, picture: bytes) -> JsonObject:
    """Return a preview for a client that takes JSON only."""
    return message | {"preview": f"data:{message['media_type']};base64,{base64.b64encode(picture).decode()}"}


def _offer(header: SketchHeader, data: bytes) -> Offer:
    return Offer(data, header.style or None, header.settings, header.seq, header.force)


def _numbered(seq: int | None) -> JsonObject:
    return {} if seq is None else {"seq": seq}


def _what_is_wrong(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the message'}: {first['msg']}"
