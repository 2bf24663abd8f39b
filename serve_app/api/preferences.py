"""The preferences of a request (RFC 7240), of which one is known: ``wait``, in seconds."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header, Request

QUOTED = r'"(?:[^"\\]|\\.)*"'
ELEMENT = re.compile(rf'(?:[^,"]|{QUOTED})+')  # of the list: a preference with its parameters
PREFERENCE = re.compile(rf'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*({QUOTED}|[^\s";]*)\s*)?(?:;.*)?', re.DOTALL)
SECONDS = re.compile(r"[0-9]{1,9}")


def parse_preferences(header: str) -> dict[str, str]:
    """Read a Prefer header: value by name in lower case.

    Parameters after a semicolon belong to their preference and are left out; of a name that comes twice the first counts; what is no
    preference is ignored, as the RFC asks for.
    """
    found: dict[str, str] = {}
    for element in ELEMENT.findall(header):
        preference = PREFERENCE.fullmatch(element)
        if preference is not None:
            found.setdefault(preference[1].lower(), re.sub(r"\\(.)", r"\1", (preference[2] or "").strip('"')))
    return found


def _preferred_wait(
    request: Request,
    prefer: Annotated[  # noqa: ARG001 -- documents the header; the request has all lines of it
        str | None,
        Header(description="RFC 7240; `wait=<seconds>` answers when the job has ended, or after that time", examples=["wait=20"]),
    ] = None,
) -> int | None:
    wait = parse_preferences(", ".join(request.headers.getlist("prefer"))).get("wait", "")
    return int(wait) if SECONDS.fullmatch(wait) else None


PreferredWait = Annotated[int | None, Depends(_preferred_wait)]
