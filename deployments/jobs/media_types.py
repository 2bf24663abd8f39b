"""Media type by content: the first bytes decide, never a file name or what a sender declares.

The table also knows a few types that we do not read, so that a refusal can name what was sent.
"""

from __future__ import annotations

SCRIPTABLE = frozenset({"image/svg+xml"})  # a document that runs scripts, not a picture
SNIFF_BYTES = 512  # enough for every signature below and for the document type of a Matroska header

_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
)

_RIFF_FORMS = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo", b"WAVE": "audio/wav"}

_FTYP_BRANDS = {  # major brand of an ISO base media file; any other brand is an MP4
    b"qt  ": "video/quicktime",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"hevc": "image/heic",
    b"mif1": "image/heic",
    b"msf1": "image/heic",
}

_MPEG_AUDIO_HEADERS = (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")  # frame sync, layer III, without an ID3 tag before it

_SAME_TYPE: tuple[frozenset[str], ...] = (
    frozenset({"image/jpeg", "image/jpg", "image/pjpeg"}),
    frozenset({"image/png", "image/x-png", "image/apng"}),
    frozenset({"video/mp4", "video/quicktime", "video/x-m4v", "video/3gpp", "audio/mp4", "audio/m4a", "audio/x-m4a"}),  # one box format
    frozenset({"video/webm", "video/x-matroska", "video/matroska", "audio/webm", "audio/x-matroska"}),
    frozenset({"video/x-msvideo", "video/avi", "video/vnd.avi", "video/msvideo"}),
    frozenset({"audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"}),
    frozenset({"audio/mpeg", "audio/mp3"}),
    frozenset({"audio/ogg", "application/ogg", "audio/opus"}),
    frozenset({"audio/flac", "audio/x-flac"}),
)

_SAYS_NOTHING = frozenset({"application/octet-stream", "binary/octet-stream"})  # what stores answer when nobody declared a type


def sniff(head: bytes) -> str | None:
    """Return the media type that the first ``SNIFF_BYTES`` bytes show, or None when they show none that we know."""
    for prefix, media_type in _PREFIXES:
        if head.startswith(prefix):
            return media_type
    if head[:4] == b"RIFF":
        return _RIFF_FORMS.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _FTYP_BRANDS.get(head[8:12], "video/mp4")
    if head.startswith(b"\x1a\x45\xdf\xa3"):  # EBML
        return "video/webm" if b"webm" in head[:SNIFF_BYTES] else "video/x-matroska"
    if head.startswith(_MPEG_AUDIO_HEADERS):
        return "audio/mpeg"
    return _sniff_text(head) or _sniff_headless_quicktime(head)


def is_same_type(declared: str, found: str) -> bool:
    """Whether a declared media type agrees with the one that was found.

    So does an equal one, another name for it, a range that holds it (``video/*``), or one that says nothing.
    """
    declared = declared.partition(";")[0].strip().lower()
    if declared == found or declared in _SAYS_NOTHING or declared == f"{found.partition('/')[0]}/*":
        return True
    return any(declared in names and found in names for names in _SAME_TYPE)


def _sniff_text(head: bytes) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "text/html"
    if start.startswith(b"<svg"):
        return "image/svg+xml"
    if start.startswith(b"<?xml"):
        return "image/svg+xml" if b"<svg" in head else "application/xml"
    return None


def _sniff_headless_quicktime(head: bytes) -> str | None:
    # QuickTime files from before 2001 start with their movie or media box instead of a file type box.
    return "video/quicktime" if head[4:8] in (b"moov", b"mdat", b"wide") else None
