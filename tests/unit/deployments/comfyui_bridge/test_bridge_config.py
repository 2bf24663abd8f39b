"""How backends are written, and what their tags offer."""

from __future__ import annotations

import pytest

from deployments.comfyui_bridge.config import ComfyConfig, offers_of, parse_backend, requirement_of
from deployments.jobs.model import BackendSpec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8188#name=a", BackendSpec("a", "http://127.0.0.1:8188")),
        ("http://GPU1:8188/#name=a", BackendSpec("a", "http://gpu1:8188")),
        ("http://gpu1#name=a", BackendSpec("a", "http://gpu1:80")),
        ("https://comfy.example.com#name=a", BackendSpec("a", "https://comfy.example.com:443")),
        ("http://[::1]:8188#name=local", BackendSpec("local", "http://[::1]:8188")),
        ("gpu1:8188#name=a&tags=sdxl+flux&weight=2&in_flight=1", BackendSpec("a", "http://gpu1:8188", ("flux", "sdxl"), 2.0, 1)),
    ],
)
def test_parse_backend(text, expected):
    assert parse_backend(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "ftp://x:1", "http://user:pw@x:1", "http://x:1?a=b", "http://x:port", "x:1#weight=0", "x:1#in_flight=3", "x:1#colour=red",
     "x:1#tags=UPPER", "http://u:secret@\u2100x:1", "x:1#tags=a+b+c+d+e+f+g", "x:1#name=a/b", "x:0", "http://gp\u00fc:1", "http://a_b!:1"],
)  # fmt: skip
def test_parse_backend_says_what_is_wrong(text):
    with pytest.raises(ValueError, match=r"ComfyUI server|backend|tag|bad query"):
        parse_backend(text)


def test_a_name_that_nobody_gave_shows_no_address():
    one, same, other = (parse_backend(text).name for text in ("10.0.0.5:8188", "http://10.0.0.5:8188/", "10.0.0.6:8188"))
    assert one == same != other
    assert "10" not in one.removeprefix("comfyui-") or "." not in one


def test_two_backends_of_one_name_stop_the_start():
    with pytest.raises(ValueError, match="two backends have the name a"):
        ComfyConfig(backends=("x:1#name=a", "x:2#name=a"))


def test_a_requirement_is_met_by_whoever_has_all_its_tags():
    assert requirement_of(()) is None
    assert requirement_of(("b", "a")) in offers_of(("c", "a", "b"))
    assert requirement_of(("b", "d")) not in offers_of(("c", "a", "b"))
    assert len(offers_of(tuple("abcdef"))) == 63
