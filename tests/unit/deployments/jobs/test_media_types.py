import pytest

from deployments.jobs.media_types import is_same_type, sniff


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\0\0\0\0AVI LIST", "video/x-msvideo"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
        (b"RIFF\0\0\0\0????", None),
        (b"\0\0\0\x18ftypmp42", "video/mp4"),
        (b"\0\0\0\x18ftypisom", "video/mp4"),
        (b"\0\0\0\x18ftypqt  ", "video/quicktime"),
        (b"\0\0\0\x18ftypM4A ", "audio/mp4"),
        (b"\0\0\0\x18ftypheic", "image/heic"),
        (b"\0\0\0\x18ftypavif", "image/avif"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm", "video/webm"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x88matroska", "video/x-matroska"),
        (b"\0\0\x10\0moov", "video/quicktime"),
        (b"OggS\0", "audio/ogg"),
        (b"fLaC", "audio/flac"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90", "audio/mpeg"),
        (b"  <!DOCTYPE html>", "text/html"),
        (b"\xef\xbb\xbf<HTML>", "text/html"),
        (b'<?xml version="1.0"?><svg>', "image/svg+xml"),
        (b"<?xml version='1.0'?><Error>", "application/xml"),
        (b"<svg/>", "image/svg+xml"),
        (b"%PDF-1.7", "application/pdf"),
        (b"PK\x03\x04", "application/zip"),
        (b"#EXTM3U\n", None),
        (b"", None),
    ],
)
def test_sniff_goes_by_content(head, media_type):
    assert sniff(head) == media_type


@pytest.mark.parametrize(
    ("declared", "found", "same"),
    [
        ("image/png", "image/png", True),
        ("image/jpg", "image/jpeg", True),
        ("Image/JPEG; q=1", "image/jpeg", True),
        ("video/quicktime", "video/mp4", True),
        ("audio/webm", "video/webm", True),
        ("application/octet-stream", "video/mp4", True),
        ("image/png", "image/jpeg", False),
        ("video/mp4", "video/webm", False),
        ("audio/mpeg", "audio/wav", False),
        ("image/*", "image/webp", True),
        ("Video/*", "video/mp4", True),
        ("video/*", "image/png", False),
    ],
)
def test_is_same_type(declared, found, same):
    assert is_same_type(declared, found) is same
