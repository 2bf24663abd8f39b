"""URLs that clients give for media."""

from __future__ import annotations

import pytest

from deployments.jobs.errors import InvalidInput, MediaTypeMismatch
from deployments.jobs.media_url import to_reference


@pytest.mark.parametrize(
    ("url", "media_type", "reference"),
    [
        ("https://example.com/a.png", None, {"url": "https://example.com/a.png"}),
        ("HTTP://example.com/a.png", None, {"url": "HTTP://example.com/a.png"}),
        ("http://example.com/a", "video/*", {"url": "http://example.com/a", "media_type": "video/*"}),
        ("data:image/png;base64,AAAA", None, {"base64": "AAAA", "media_type": "image/png"}),
        ("DATA:image/jpeg;charset=x;base64,AAAA", "image/*", {"base64": "AAAA", "media_type": "image/jpeg"}),
    ],
)
def test_to_reference(url, media_type, reference):
    assert to_reference(url, media_type) == reference


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.com/a.png", "begins with http://, https://, data:, s3:// or gs://"),
        ("", "begins with"),
        ("data:image/png,AAAA", "has the form"),
        ("data:;base64,AAAA", "has the form"),
        ("data:image/png;base64", "has the form"),
    ],
)
def test_to_reference_says_what_a_url_has_to_be(url, message):
    with pytest.raises(InvalidInput, match=message):
        to_reference(url)


def test_to_reference_refuses_data_that_declare_another_type():
    with pytest.raises(MediaTypeMismatch):
        to_reference("data:image/png;base64,AAAA", "video/*")
