"""docs/api.md names every path of every dialect, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi.routing import APIRoute, APIWebSocketRoute

from serve_app.dialects.chosen import build_dialects
from serve_app.dialects.config import DialectsConfig

ROOT = Path(__file__).parents[4]
LETTERS = {
    "tasks (A and B)": {"A", "B"},
    "task service (A)": {"A"},
    "middleware (B)": {"B"},
    "gateway (C)": {"C"},
    "drawing (D)": {"D"},
    "face2face (E)": {"E"},
}


def test_every_path_is_in_the_table_with_its_dialect():
    rows = re.findall(r"^\| `(\w+) (/\S+)` \| ([ABCDE, ]+) \| (.+) \|$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE)
    table = {(method, path): set(letters.split(", ")) for method, path, letters, _ in rows}
    routes = {}
    for dialect in build_dialects(DialectsConfig()):
        for router in dialect.routers:
            for route in router.routes:
                if isinstance(route, APIRoute):
                    routes[min(route.methods), route.path] = LETTERS[str(route.tags[0])]
                elif isinstance(route, APIWebSocketRoute):
                    routes["WS", route.path] = LETTERS[dialect.tag["name"]]
    assert table == routes
    assert len(rows) == len(table)
