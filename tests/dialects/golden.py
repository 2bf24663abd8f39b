"""Golden conversations: what clients of an older service send, and what they are answered, kept as files.

A file holds conversations, each a list of steps::

    {"says": "…", "send": {"method", "path", "json" | "form" + "file", "headers"}, "reply": {"status", "json" | "type"},
     "keep": {"task_id": "task_id"}, "until": {"status": "COMPLETED"}}

``{{name}}`` in a request or a reply is what an earlier step has kept. A reply is compared whole: every key must be there and no other.
``<uuid>``, ``<time>``, ``<url>``, ``<int>``, ``<number>``, ``<text>`` and ``<any>`` stand for values that differ each time,
``["<each>", pattern]`` for a list of at least one, ``{"<others>": pattern}`` for the keys that are not named, and
``{"<like>": "task", …}`` for a pattern of ``patterns.json`` with some of its fields given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.cluster import wait_until

FOLDER = Path(__file__).parent / "golden"
PATTERNS = json.loads((FOLDER / "patterns.json").read_text("utf-8"))
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
UNTIL_S = 60.0

STANDS_FOR = {
    "<uuid>": lambda value: isinstance(value, str) and UUID.fullmatch(value),
    "<time>": lambda value: isinstance(value, str) and TIME.fullmatch(value),
    "<url>": lambda value: isinstance(value, str) and value.startswith("http://"),
    "<int>": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "<number>": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "<text>": lambda value: isinstance(value, str) and value,
    "<any>": lambda value: True,
}


def conversations(dialect: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the conversations of a dialect's file by name."""
    return list(json.loads((FOLDER / f"{dialect}.json").read_text("utf-8")).items())


def hold(api: httpx.Client, steps: list[dict[str, Any]], **known: str) -> dict[str, Any]:
    """Send each request in turn and compare each reply; returns what was kept."""
    kept: dict[str, Any] = dict(known)
    for step in steps:
        said, send, reply = step["says"], _filled(step["send"], kept), _filled(step["reply"], kept)
        answer = _send_until(api, send, _filled(step.get("until", {}), kept))
        assert answer.status_code == reply["status"], f"{said}: {answer.status_code} {answer.text[:500]}"
        if "type" in reply:
            assert answer.headers["content-type"] == reply["type"], said
        if "json" in reply:
            wrong = list(differences(answer.json(), reply["json"]))
            assert not wrong, f"{said}: {'; '.join(wrong)}\n{json.dumps(answer.json(), indent=1, ensure_ascii=False)[:3000]}"
        for name, path in step.get("keep", {}).items():
            kept[name] = _at(answer.json(), path)
    return kept


def differences(found: Any, pattern: Any, place: str = "$") -> Iterator[str]:
    """Name every place in which a value is not as the pattern says."""
    if isinstance(pattern, dict):
        if not isinstance(found, dict):
            yield f"{place} is {found!r:.60} and no object"
            return
        yield from _of_objects(found, _expanded(pattern), place)
    elif isinstance(pattern, list):
        if not isinstance(found, list):
            yield f"{place} is {found!r:.60} and no list"
            return
        yield from _of_lists(found, pattern, place)
    elif isinstance(pattern, str) and pattern in STANDS_FOR:
        if not STANDS_FOR[pattern](found):
            yield f"{place} is {found!r:.60} and no {pattern}"
    elif found != pattern or type(found) is not type(pattern):
        yield f"{place} is {found!r:.60} and not {pattern!r:.60}"


def _of_objects(found: dict[str, Any], pattern: dict[str, Any], place: str) -> Iterator[str]:
    others = pattern.get("<others>")
    for key in pattern.keys() - {"<others>"}:
        if key in found:
            yield from differences(found[key], pattern[key], f"{place}.{key}")
        else:
            yield f"{place}.{key} is missing"
    for key in found.keys() - pattern.keys():
        if others is None:
            yield f"{place}.{key} is surplus"
        else:
            yield from differences(found[key], others, f"{place}.{key}")


def _of_lists(found: list[Any], pattern: list[Any], place: str) -> Iterator[str]:
    if pattern[:1] == ["<each>"]:
        if not found:
            yield f"{place} is empty"
        pattern = [pattern[1]] * len(found)
    if len(found) != len(pattern):
        yield f"{place} has {len(found)} items and not {len(pattern)}"
    for n, (item, wanted) in enumerate(zip(found, pattern, strict=False)):
        yield from differences(item, wanted, f"{place}[{n}]")


def _expanded(pattern: dict[str, Any]) -> dict[str, Any]:
    name = pattern.get("<like>")
    return pattern if name is None else _expanded(PATTERNS[name]) | {key: value for key, value in pattern.items() if key != "<like>"}


def _send_until(api: httpx.Client, send: dict[str, Any], until: dict[str, Any]) -> httpx.Response:
    def look() -> httpx.Response | None:
        answer = _send(api, send)
        return answer if all(_at(answer.json(), path) == value for path, value in until.items()) else None

    answer: httpx.Response = wait_until(look, UNTIL_S, f"{send['path']} does not get to {until}", lambda: _send(api, send).text)
    return answer


def _send(api: httpx.Client, send: dict[str, Any]) -> httpx.Response:
    more: dict[str, Any] = {}
    if "file" in send:
        field, name, path = send["file"]
        more = {"files": {field: (name, Path(path).read_bytes())}, "data": send.get("form", {})}
    elif "json" in send:
        more = {"json": send["json"]}
    elif "text" in send:
        more = {"content": send["text"]}
    return api.request(send["method"], send["path"], headers=send.get("headers"), **more)


def _filled(value: Any, kept: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key if key.startswith("<") else _filled(key, kept): _filled(item, kept) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, kept) for item in value]
    if not isinstance(value, str):
        return value
    whole = re.fullmatch(r"\{\{(\w+)\}\}", value)
    return kept[whole[1]] if whole else re.sub(r"\{\{(\w+)\}\}", lambda found: str(kept[found[1]]), value)


def _at(value: Any, path: str) -> Any:
    """Return what lies at a path such as ``data.queue_running.0.prompt_id``; None when nothing does."""
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (LookupError, TypeError):
            return None
    return value
