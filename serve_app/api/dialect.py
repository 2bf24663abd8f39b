"""What a dialect adds to the application: somebody else's routes, beside our own and translated to them.

A value, so that the API knows no dialect: the ingress puts them in. See ``serve_app/dialects``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fastapi import APIRouter
from starlette.middleware import Middleware

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.jobs.model import JsonObject

Describe = Callable[[JsonObject, Iterable[NamedWorkflow]], JsonObject]  # returns another document, with what depends on the workflows


def _as_it_is(document: JsonObject, _: Iterable[NamedWorkflow]) -> JsonObject:
    return document


@dataclass(frozen=True, slots=True)
class Dialect:
    """Routes of one older service."""

    tag: Mapping[str, str]  # OpenAPI: name and description, under which its routes are grouped
    routers: tuple[APIRouter, ...]
    uploads: frozenset[str] = frozenset()  # paths that read a body as it comes
    outermost: tuple[Middleware, ...] = ()  # around everything else, for a service that answers its own way whatever happens
    state: Mapping[str, object] = field(default_factory=dict)  # of the application, for the routes
    describe: Describe = field(default=_as_it_is)
