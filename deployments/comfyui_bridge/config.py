"""Which ComfyUI servers there are, and how patiently they are driven."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from deployments.comfyui_client.config import ClientConfig
from deployments.jobs.model import BackendSpec
from deployments.storage.address import is_name, parse_host

TAG = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
MAX_TAGS = 6  # of one backend: every combination is offered with each claim, and 63 still fit into a query
DEFAULT_PORTS = {"http": 80, "https": 443}
CLIENT_ID_PREFIX = r"^[A-Za-z0-9_.-]{1,64}$"  # an older service's own id may be a UUID
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class ManagedConfig(BaseModel):
    """A ComfyUI that each bridge replica starts for itself, inside its share of a GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: Path | None = Field(None, description="folder with ComfyUI's main.py; set, each replica of the pool starts one of its own")
    python: str | None = Field(None, description="interpreter that runs it; default: .venv or venv in that folder, else this service's own")
    arguments: tuple[str, ...] = Field((), description='further arguments for main.py, as JSON: ["--lowvram"]')
    tags: tuple[str, ...] = Field((), description="tags of every backend started so")
    start_timeout_s: float = Field(300.0, gt=0, description="until it must answer; custom nodes and a cold disk take minutes")
    stop_timeout_s: float = Field(10.0, gt=0, description="between SIGTERM and SIGKILL")

    @field_validator("tags")
    @classmethod
    def _tags_readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked_tags(value)

    @property
    def enabled(self) -> bool:
        """Whether replicas start servers."""
        return self.directory is not None


class ComfyConfig(BaseModel):
    """How a bridge replica drives its backends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backends: tuple[str, ...] = Field(
        (),
        description="ComfyUI servers, see parse_backend",
    )
    client_id_prefix: str = Field(
        "atelier",
        pattern=CLIENT_ID_PREFIX,
        description="begins the client ids: one for each installation, or two that share a server would cancel each other's prompts",
    )
    client: ClientConfig = Field(ClientConfig(), description="connections to ComfyUI servers")
    managed: ManagedConfig = Field(
        ManagedConfig(), description="ComfyUI servers that the replicas start themselves, instead of driving those of COMFYUI_URL"
    )
    max_output_bytes: int = Field(4 * 2**30, gt=0, description="longest outputs of one job, all together")
    hold_s: float = Field(2.0, gt=0, description="how often a replica renews its hold on its backends and looks at their health")
    poll_s: float = Field(0.5, gt=0, description="how often a prompt is looked at while its events cannot arrive")
    watchdog_s: float = Field(10.0, gt=0, description="silence of a server about a prompt after which the prompt is looked at")
    settle_s: float = Field(1.0, ge=0, description="between the last two looks into the history before a prompt counts as lost")
    unreachable_s: float = Field(
        10.0, gt=0, description="how long a server may not answer before what it has is given up: it may only stall"
    )
    interrupt_s: float = Field(20.0, gt=0, description="a cancelled prompt that still runs after this makes its backend unhealthy")
    choose_s: float = Field(5.0, gt=0, description="how long a claimed job waits for a backend that fits before it is handed back")
    stuck_s: float = Field(10.0, gt=0, description="prompts that wait at a server that runs none for so long make it unhealthy")
    info_fresh_s: float = Field(30.0, ge=0, description="how long the description of a backend's nodes is trusted")

    @field_validator("backends")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        specs = [parse_backend(text) for text in value]
        for what in ("name", "url"):
            seen = [getattr(spec, what) for spec in specs]
            twice = sorted({item for item in seen if seen.count(item) > 1})
            if twice:
                raise ValueError(f"two backends have the {what} {twice[0]}: give each its own")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> ComfyConfig:
        if self.backends and self.managed.enabled:
            raise ValueError(
                "COMFYUI_URL and ATELIER_COMFYUI__MANAGED__DIRECTORY exclude each other: a replica drives servers or starts one"
            )
        return self

    def specs(self) -> tuple[BackendSpec, ...]:
        """Return the configured backends."""
        return tuple(parse_backend(text) for text in self.backends)


def parse_backend(text: str, *, configured: bool = True) -> BackendSpec:
    """Read ``http://host:port#name=…&tags=a+b&weight=2&in_flight=1``; a missing scheme is http.

    Raises:
        ValueError: it is none; the text says what to do.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
    except ValueError:  # its text shows all that was written, a password too
        raise ValueError("a ComfyUI server is written http://host:port; this is no URL") from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.query or parts.username or parts.password:
        raise ValueError("a ComfyUI server is written http://host:port, without a user, a password or a query")
    try:
        port = parts.port if parts.port is not None else DEFAULT_PORTS[parts.scheme]
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the port of a ComfyUI server is a number from 1 to 65535")
    options = {name: values[-1] for name, values in parse_qs(parts.fragment, strict_parsing=bool(parts.fragment)).items()}
    unknown = sorted(options.keys() - {"name", "tags", "weight", "in_flight"})
    if unknown:
        raise ValueError(f"a ComfyUI server has no option {unknown[0]}: there is name, tags, weight and in_flight")
    if parse_host(parts.hostname) is None and not is_name(parts.hostname):
        raise ValueError(f"the host of a ComfyUI server is a name or an address, not {parts.hostname!r}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    # Always with its port: one server under two spellings would have two owners, who cancel each other's prompts.
    url = f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"
    return BackendSpec(
        name=_name(options.get("name") or f"comfyui-{hashlib.sha256(url.encode()).hexdigest()[:6]}"),  # clients see it: no address
        url=url,
        tags=checked_tags(options.get("tags", "").split()),  # a + in a query is a blank
        weight=_number(options.get("weight", "1"), "weight", 0.01, 1000),
        in_flight=int(_number(options.get("in_flight", "2"), "in_flight", 1, 2)),
        configured=configured,
    )


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags in order, each once.

    Raises:
        ValueError: too many, or not written as a tag is.
    """
    found = tuple(sorted(set(tags)))
    if len(found) > MAX_TAGS:
        raise ValueError(f"a backend has at most {MAX_TAGS} tags")
    for tag in found:
        if TAG.fullmatch(tag) is None:
            raise ValueError(f"a tag has 1 to 32 of a-z, 0-9, dot, dash and underscore, not {tag!r}")
    return found


def requirement_of(tags: tuple[str, ...]) -> str | None:
    """Return what a job requires that asks for a backend with all of these tags."""
    return "tags:" + "+".join(sorted(tags)) if tags else None


def offers_of(tags: tuple[str, ...]) -> frozenset[str]:
    """Return every requirement that a backend with these tags meets."""
    ordered = sorted(tags)
    chosen = (combination for size in range(1, len(ordered) + 1) for combination in combinations(ordered, size))
    return frozenset("tags:" + "+".join(combination) for combination in chosen)


def _name(text: str) -> str:
    if NAME.fullmatch(text) is None:
        raise ValueError(f"a backend's name has 1 to 64 of a-z, 0-9, dot, dash and underscore, not {text!r}")
    return text


def _number(text: str, what: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise ValueError(f"{what} of a backend is a number from {least:g} to {most:g}, not {text!r}")
    return value
