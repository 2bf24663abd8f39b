"""The landing page: its addresses exist, and its script finds what it fills."""

from __future__ import annotations

import re

from serve_app.web.pages import STATIC, STRICT

PAGE = (STATIC / "index.html").read_text("utf-8")
SCRIPT = (STATIC / "index.js").read_text("utf-8")


async def test_every_address_of_the_landing_page_answers(client):
    addresses = {address.partition("#")[0] for address in re.findall(r'href="([^"]+)"', PAGE)}
    assert {"docs", "v1/workflows", "v1/admin/backends", "v1/capabilities"} <= addresses
    assert {address: (await client.get(f"/{address}")).status_code for address in addresses} == dict.fromkeys(addresses, 200)


def test_the_script_of_the_landing_page_fills_places_that_are_there():
    filled = set(re.findall(r'element\("([^"]+)"\)', SCRIPT))
    assert filled == {"engines", "backends", "jobs", "connection"}
    assert filled <= set(re.findall(r'id="([^"]+)"', PAGE))


def test_the_landing_page_needs_nothing_that_its_policy_forbids():
    assert "unsafe" not in STRICT
    assert not re.search(r"style=|innerHTML|insertAdjacentHTML|document\.write|eval\(", PAGE + SCRIPT)


def test_the_landing_page_marks_fake_backends():
    assert re.search(r"if \(backend\.fake\)(.|\n)+?fake backend", SCRIPT)
