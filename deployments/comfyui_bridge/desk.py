"""What a client may do with workflows, and an operator with backends, besides submitting jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from deployments.comfyui_bridge.catalogue import NamedWorkflow, WorkflowCatalogue
from deployments.comfyui_bridge.config import checked_tags, parse_backend
from deployments.comfyui_bridge.descriptions import Descriptions
from deployments.comfyui_bridge.planner import ComfyPlanner
from deployments.comfyui_bridge.servers import ComfyServers
from deployments.engines.comfyui.overrides import changed_graph
from deployments.engines.comfyui.parameters import Parameter, find_parameters
from deployments.engines.comfyui.registration import infer_parameters
from deployments.engines.comfyui.workflow_file import FileProblem
from deployments.jobs.capabilities import BackendInfo
from deployments.jobs.errors import InvalidInput, UrlNotAllowed
from deployments.jobs.model import BackendState, JsonObject
from deployments.jobs.ports import BackendRegistry
from deployments.storage.address import AllowList, parse_host


class ComfyDesk:
    """Workflows by name, their parameters, and the backends that run them."""

    def __init__(
        self,
        catalogue: WorkflowCatalogue,
        descriptions: Descriptions,
        planner: ComfyPlanner,
        registry: BackendRegistry,
        servers: ComfyServers,
        allow: AllowList,
    ) -> None:
        """Take the parts; ``allow`` are the hosts that may be added as backends at run time."""
        self.servers = servers
        self._catalogue = catalogue
        self._descriptions = descriptions
        self._planner = planner
        self._registry = registry
        self._allow = allow

    # Workflows.

    async def workflows(self, tenant: str) -> list[NamedWorkflow]:
        """Return every workflow that this tenant may name."""
        return await self._catalogue.list_all(tenant)

    async def shipped_workflows(self) -> list[NamedWorkflow]:
        """Return the workflows of the installation."""
        return await self._catalogue.shipped()

    async def workflow_problems(self) -> tuple[FileProblem, ...]:
        """Return the files of the installation's folder that could not be read."""
        return await self._catalogue.problems()

    async def workflow(self, tenant: str, name: str) -> NamedWorkflow:
        """Return a workflow by ``name`` or ``name@version``.

        Raises:
            WorkflowNotFound: there is none.
        """
        return await self._catalogue.find(tenant, name)

    async def put_workflow(self, tenant: str, name: str, document: JsonObject, meta: JsonObject) -> NamedWorkflow:
        """Store a workflow; raises as :meth:`WorkflowCatalogue.put`."""
        return await self._catalogue.put(tenant, name, document, meta, await self._descriptions.info())

    async def update_workflow(self, tenant: str, name: str, overrides: Mapping[str, Any]) -> NamedWorkflow:
        """Store a version of a workflow in which single inputs have other values; in API format, whatever it was.

        Args:
            tenant: whose.
            name: of an uploaded workflow.
            overrides: values by ``"<node id or title>.<input>"``. A seed of -1 stays one: every run draws its own.

        Raises:
            WorkflowNotFound: there is none.
            NameTaken: it is a shipped one.
            WorkflowInvalid: names every override that does not fit.
        """
        workflow = await self._catalogue.find(tenant, name)
        graph, info = await self._planner.to_graph(workflow.graph)
        changed = await asyncio.to_thread(changed_graph, graph, overrides, info)
        return await self._catalogue.put(tenant, workflow.name, changed, workflow.meta.model_dump(mode="json", exclude_defaults=True), info)

    async def register_workflow(
        self, tenant: str, name: str, document: JsonObject, inputs: Mapping[str, str | None], title: str, description: str
    ) -> NamedWorkflow:
        """Store a workflow whose typed inputs are inferred, as :func:`infer_parameters` says; in API format, whatever it was.

        Raises:
            InvalidInput: the name or the graph cannot be used.
            NameTaken: a shipped workflow has the name.
            WorkflowInvalid: an input has no place in the graph.
        """
        graph, info = await self._planner.to_graph(document)
        parameters = await asyncio.to_thread(infer_parameters, graph, info, inputs)
        meta = {"title": title, "description": description, "parameters": parameters}
        return await self._catalogue.put(tenant, name, graph, meta, info)

    async def delete_workflow(self, tenant: str, name: str) -> None:
        """Forget a workflow; raises as :meth:`WorkflowCatalogue.delete`."""
        await self._catalogue.delete(tenant, name)

    async def parameters(self, tenant: str, name: str) -> tuple[Parameter, ...]:
        """Return every input of a workflow that may be overridden.

        Raises:
            WorkflowNotFound: there is none.
            ObjectInfoNeeded: it is in UI format, and no backend answers.
        """
        return await self.parameters_of((await self._catalogue.find(tenant, name)).graph)

    async def parameters_of(self, document: JsonObject) -> tuple[Parameter, ...]:
        """Return every input of a graph that may be overridden.

        Raises:
            ObjectInfoNeeded: it is in UI format, and no backend answers.
        """
        graph, info = await self._planner.to_graph(document)
        return find_parameters(graph, info)

    # Backends.

    async def backends(self) -> tuple[BackendState, ...]:
        """Return all backends and what is known of them."""
        return await self._registry.backends()

    async def backend_infos(self) -> tuple[BackendInfo, ...]:
        """Return what clients may know of the backends."""
        return tuple(_to_info(state) for state in await self._descriptions.backends())

    async def add_backend(self, url: str, name: str | None, tags: tuple[str, ...], weight: float, in_flight: int) -> BackendState:
        """Add a ComfyUI server at run time.

        Raises:
            InvalidInput: it is not written as a server is.
            UrlNotAllowed: its host is not one that the operator has allowed.
            NameTaken: the name or the URL is that of another backend.
        """
        options = f"tags={'+'.join(tags)}&weight={weight:g}&in_flight={in_flight}" + (f"&name={name}" if name else "")
        if "#" in url:
            raise InvalidInput("give the options of a backend as fields, not behind a #")
        try:
            spec = parse_backend(f"{url}#{options}", configured=False)
            checked_tags(tags)
        except ValueError as error:
            raise InvalidInput(str(error)) from None
        self._check_host(spec.url)
        return await self._registry.add_backend(spec)

    async def remove_backend(self, name: str) -> None:
        """Remove a server that was added at run time.

        Raises:
            BackendNotFound: there is none.
            NameTaken: it comes from the settings.
        """
        await self._registry.remove_backend(name)

    async def drain_backend(self, name: str, *, draining: bool) -> BackendState:
        """Stop sending jobs to a server, or go on.

        Raises:
            BackendNotFound: there is none.
        """
        return await self._registry.drain_backend(name, draining=draining)

    def _check_host(self, url: str) -> None:
        # Whoever may send this request could have the workers talk to any address inside; so only what the operator named.
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        address = parse_host(host)
        allowed = self._allow.allows_name(host, port) if address is None else self._allow.allows_address(address, port)
        if not allowed:
            raise UrlNotAllowed(f"{host} may not be added as a backend: name it in ATELIER_FETCH_ALLOW first, or set it in COMFYUI_URL")


def _to_info(state: BackendState) -> BackendInfo:
    health = state.health
    return BackendInfo(
        name=state.spec.name,
        tags=state.spec.tags,
        healthy=bool(health and health.healthy),
        draining=state.draining,
        version=health.version if health else None,
        fake=bool(health and health.fake),
    )
