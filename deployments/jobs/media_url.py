"""URLs that clients give for media: of the web, or with the media in them (RFC 2397)."""

from __future__ import annotations

from deployments.jobs.errors import InvalidInput, MediaTypeMismatch
from deployments.jobs.media_types import is_same_type
from deployments.jobs.model import JsonObject

WEB_SCHEMES = ("http://", "https://")
CLOUD_SCHEMES = ("s3://", "gs://")
DATA_SCHEME = "data:"


def is_data_url(url: str) -> bool:
    """Whether the media are in the URL itself."""
    return url[: len(DATA_SCHEME)].lower() == DATA_SCHEME


def to_reference(url: str, media_type: str | None = None) -> JsonObject:
    """Return a media reference, as ``MediaRef`` reads it, for a URL.

    Args:
        url: ``http:``, ``https:``, ``data:``, ``s3:`` or ``gs:``.
        media_type: what it has to lead to, or a range such as ``video/*``.

    Raises:
        InvalidInput: another scheme, or a data: URL that is none.
        MediaTypeMismatch: a data: URL that declares another type.
    """
    begin = url[:8].lower()
    if begin.startswith(DATA_SCHEME):
        return _inline(url, media_type)
    if not begin.startswith((*WEB_SCHEMES, *CLOUD_SCHEMES)):
        raise InvalidInput("the URL of media begins with http://, https://, data:, s3:// or gs://")
    return {"url": url} | ({"media_type": media_type} if media_type else {})


def _inline(url: str, media_type: str | None) -> JsonObject:
    head, comma, data = url[len(DATA_SCHEME) :].partition(",")
    declared, *parameters = head.split(";")
    if not comma or "base64" not in parameters or not declared:
        raise InvalidInput("a data: URL has the form data:<media type>;base64,<data>")
    if media_type and not is_same_type(media_type, declared.lower()):
        raise MediaTypeMismatch(media_type, declared)
    return {"base64": data, "media_type": declared}
