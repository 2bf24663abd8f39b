"""Which Duix services there are, how files get to them and back, and how patiently they are driven."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
OPTIONS = frozenset({"name", "data_dir", "results"})
DEFAULT_DATA_DIR = Path("/code/data")  # where the Duix container has it


class UpstreamSpec(BaseModel):
    """One Duix service. Files go by a shared folder, or by URL where there is ``results``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    url: str
    data_dir: Path | None = None  # its data folder, as this machine sees it; None: that of DUIX_DATA_DIR
    results: str | None = None  # URL of the folder in which its results appear


class DuixConfig(BaseModel):
    """How a Duix replica drives its upstreams."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    upstreams: tuple[str, ...] = Field((), description="Duix services, see parse_upstream")
    data_dir: Path = Field(DEFAULT_DATA_DIR, description="data folder of the Duix services")
    offer_url: str = Field(
        "",
        description="address at which Duix services without a shared folder fetch the inputs from this machine: http://10.0.0.5:8386",
    )
    offer_bind: str = Field("127.0.0.1", description="address that those inputs are served on; widen it where the services are elsewhere")
    connect_timeout_s: float = Field(5.0, gt=0, description="TCP connection to a Duix service")
    request_timeout_s: float = Field(30.0, gt=0, description="one answer of a Duix service: it answers between two steps of its work")
    max_answer_bytes: int = Field(2**20, gt=0, description="longest answer of a Duix service that is no video")
    poll_s: float = Field(2.0, gt=0, description="how often a task is looked at, as often as the desktop application does")
    probe_s: float = Field(5.0, gt=0, description="how often an idle service is asked for a sign of life")
    busy_s: float = Field(5.0, gt=0, description="how long a service that works for somebody else is left alone before it is tried again")
    silence_s: float = Field(
        900.0,
        gt=0,
        description="a task that shows no progress for so long is given up: the service itself waits 600 s for its own parts",
    )
    unreachable_s: float = Field(30.0, gt=0, description="how long a service that has a task may not answer before it counts as lost")
    dead_s: float = Field(300.0, gt=0, description="how long a service that has to be restarted gets no task, unless it is seen to restart")
    appear_s: float = Field(10.0, ge=0, description="how long a finished result may take to be seen: shared folders lag behind")
    cleanup_delay_s: float = Field(60.0, ge=0, description="how long a task's files stay with the service after its end")
    max_result_bytes: int = Field(4 * 2**30, gt=0, description="longest video that is taken from a Duix service")

    @field_validator("upstreams")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        specs = [parse_upstream(text) for text in value]
        for what in ("name", "url"):
            twice = [item for item, count in Counter(getattr(spec, what) for spec in specs).items() if count > 1]
            if twice:
                raise ValueError(f"two Duix services have the {what} {twice[0]}: give each its own")
        return value

    @model_validator(mode="after")
    def _offered_where_needed(self) -> DuixConfig:
        by_url = [spec.name for spec in self.specs() if spec.results]
        if by_url and not self.offer_url:
            raise ValueError(f"the Duix service {by_url[0]} has results by URL: set ATELIER_DUIX__OFFER_URL, where it fetches its inputs")
        parts = urlsplit(self.offer_url)
        if self.offer_url and (parts.scheme != "http" or not parts.hostname or not parts.port or parts.path.strip("/")):
            raise ValueError("ATELIER_DUIX__OFFER_URL is written http://host:port")
        return self

    def specs(self) -> tuple[UpstreamSpec, ...]:
        """Return the upstreams, each with its data folder unless its results come by URL."""
        found = (parse_upstream(text) for text in self.upstreams)
        return tuple(s if s.results or s.data_dir else s.model_copy(update={"data_dir": self.data_dir}) for s in found)


class DuixOptions(BaseModel):
    """What a task may say besides its files."""

    model_config = ConfigDict(frozen=True)

    enhance: bool = False

    def as_flags(self) -> dict[str, Literal[0, 1]]:
        """Return the fields of a submit: super-resolution as asked, no visible marks, and a template that is played to and fro."""
        return {"chaofen": 1 if self.enhance else 0, "watermark_switch": 0, "digital_auth": 0, "pn": 1}


def parse_upstream(text: str) -> UpstreamSpec:
    """Read ``http://host:port#name=…&data_dir=/mnt/…`` or ``http://host:port#results=http://host:port/temp``.

    A missing scheme is http.

    Raises:
        ValueError: it is none; the text says what to do.
    """
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username or parts.password:
        raise ValueError("a Duix service is written http://host:8383, without a user, a password or a query")
    options = {name: values[-1] for name, values in parse_qs(parts.fragment, strict_parsing=bool(parts.fragment)).items()}
    unknown = sorted(options.keys() - OPTIONS)
    if unknown:
        raise ValueError(f"a Duix service has no option {unknown[0]}: there is name, data_dir and results")
    if "data_dir" in options and "results" in options:
        raise ValueError("a Duix service gives its results by data_dir or by results, not by both")
    url = parts._replace(fragment="").geturl().rstrip("/")
    name = options.get("name") or f"duix-{hashlib.sha256(url.encode()).hexdigest()[:6]}"  # clients see it: no address
    if NAME.fullmatch(name) is None:
        raise ValueError(f"a Duix service's name has 1 to 64 of a-z, 0-9, dot, dash and underscore, not {name!r}")
    results = options.get("results")
    if results is not None and urlsplit(results).scheme not in {"http", "https"}:
        raise ValueError("results of a Duix service is the http URL of the folder in which they appear")
    data_dir = Path(options["data_dir"]) if "data_dir" in options else None
    return UpstreamSpec(name=name, url=url, data_dir=data_dir, results=results.rstrip("/") if results else None)
