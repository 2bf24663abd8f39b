"""Workflows by name: those of a folder, which ship and are read-only, and those that clients upload, which lie in the job store.

Uploads are seen by every ingress replica at once, because each reads them from the store.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from deployments.comfyui_bridge.workflow_folder import WorkflowFolder
from deployments.engines.comfyui.bind import binding_problems
from deployments.engines.comfyui.graph import check_graph, detect_format, unwrap
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.workflow_file import (
    FileProblem,
    WorkflowFile,
    WorkflowMeta,
    read_meta,
    workflow_name,
)
from deployments.jobs.errors import InvalidInput, NameTaken, WorkflowInvalid, WorkflowNotFound
from deployments.jobs.model import JsonObject, StoredWorkflow
from deployments.jobs.ports import WorkflowStore

MAX_GRAPH_BYTES = 2**20  # as JSON: the largest public templates have half of it


@dataclass(frozen=True, slots=True)
class NamedWorkflow:
    """A workflow that a request may name."""

    name: str
    version: int | None  # None: shipped, whose version is that of the installation
    graph: JsonObject  # either format
    meta: WorkflowMeta
    created_at: float | None = None

    @property
    def shipped(self) -> bool:
        """Whether it is a file of the installation, which no request changes."""
        return self.version is None


class WorkflowCatalogue:
    """Finds, lists, stores and removes workflows."""

    def __init__(self, folder: Path, store: WorkflowStore) -> None:
        self._folder = WorkflowFolder(folder)
        self._store = store

    async def find(self, tenant: str, name: str) -> NamedWorkflow:
        """Return a workflow by ``name``, or a version of an uploaded one by ``name@3``.

        Raises:
            WorkflowNotFound: there is none, or not in this version.
        """
        plain, at, version = name.partition("@")
        shipped = (await self._shipped()).get(plain)
        if shipped is not None and not at:
            return _of_file(shipped)
        if at and not (version.isascii() and version.isdigit() and len(version) < 10):
            raise WorkflowNotFound(name)
        try:
            workflow_name(plain)
        except InvalidInput:
            raise WorkflowNotFound(name) from None
        return _of_stored(await self._store.get_workflow(tenant, plain, int(version) if at else None))

    async def list_all(self, tenant: str) -> list[NamedWorkflow]:
        """Return every workflow of a tenant by name, shipped ones first."""
        shipped = await self._shipped()
        uploaded = [_of_stored(stored) for stored in await self._store.list_workflows(tenant) if stored.name not in shipped]
        return [_of_file(file) for file in shipped.values()] + uploaded

    async def shipped(self) -> list[NamedWorkflow]:
        """Return the workflows of the folder."""
        return [_of_file(file) for file in (await self._shipped()).values()]

    async def problems(self) -> tuple[FileProblem, ...]:
        """Return the files of the folder that could not be read."""
        return (await self._folder.look()).problems

    async def put(self, tenant: str, name: str, document: JsonObject, meta: JsonObject, info: ObjectInfo | None) -> NamedWorkflow:
        """Store a workflow under a name; a new version when the name is known and something has changed.

        Raises:
            InvalidInput: the name, the graph or its description cannot be used.
            NameTaken: a shipped workflow has the name.
        """
        if workflow_name(name) in await self._shipped():
            raise NameTaken(f"the workflow {name} ships with the installation: choose another name")
        described = read_meta(meta)
        kept = described.model_dump(mode="json", exclude_defaults=True)
        graph, sha256 = await asyncio.to_thread(_checked, document, described, kept, info)
        stored = await self._store.put_workflow(StoredWorkflow(tenant, name, 0, graph, kept, sha256, time.time()))
        return _of_stored(stored)

    async def delete(self, tenant: str, name: str) -> None:
        """Forget an uploaded workflow and its versions.

        Raises:
            WorkflowNotFound: there is none.
            NameTaken: it is a shipped one.
        """
        if name in await self._shipped():
            raise NameTaken(f"the workflow {name} ships with the installation: it cannot be deleted")
        await self._store.delete_workflow(tenant, name)

    async def _shipped(self) -> dict[str, WorkflowFile]:
        return (await self._folder.look()).files


def _checked(document: JsonObject, meta: WorkflowMeta, kept: JsonObject, info: ObjectInfo | None) -> tuple[JsonObject, str]:
    """Return the graph of an upload, in the format that it came in, and a hash of it and what is kept of its description."""
    graph = unwrap(document)
    text = json.dumps([graph, kept], sort_keys=True)
    if len(text) > MAX_GRAPH_BYTES:
        raise InvalidInput(f"a workflow has at most {MAX_GRAPH_BYTES // 2**20} MiB as JSON: put pictures into files and refer to them")
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if detect_format(graph) == "ui":
        return graph, sha256  # what it lacks shows when it is converted, which needs a backend
    checked = check_graph(graph)
    problems = binding_problems(checked, meta, info)
    if problems:
        raise WorkflowInvalid("the description of the workflow names places that the graph does not have: see the nodes", problems)
    return checked, sha256


def _of_file(file: WorkflowFile) -> NamedWorkflow:
    return NamedWorkflow(file.name, None, file.graph, file.meta)


def _of_stored(stored: StoredWorkflow) -> NamedWorkflow:
    return NamedWorkflow(stored.name, stored.version, stored.graph, read_meta(stored.meta), stored.created_at)
