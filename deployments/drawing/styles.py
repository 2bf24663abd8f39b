"""Styles: workflow files in a folder, each with a place for the sketch. A broken one is reported and hides none of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.comfyui_bridge.planner import ComfyPlanner
from deployments.comfyui_bridge.workflow_folder import FolderContent, WorkflowFolder
from deployments.engines.comfyui.bind import binding_problems
from deployments.engines.comfyui.sketch_place import with_sketch
from deployments.engines.comfyui.workflow_file import FileProblem, WorkflowFile
from deployments.jobs.errors import InvalidInput, ObjectInfoNeeded, ServiceError, StyleNotFound

DEFAULT_STYLE = "realistic"


@dataclass(frozen=True, slots=True)
class StyleShelf:
    """The styles that there are. The same object as long as nothing has changed."""

    styles: Mapping[str, NamedWorkflow] = field(default_factory=dict)  # in API format, with a parameter "sketch"
    problems: tuple[FileProblem, ...] = ()


class StyleBook:
    """Reads the folder of styles."""

    def __init__(self, folder: Path, planner: ComfyPlanner) -> None:
        self._folder = WorkflowFolder(folder)
        self._planner = planner
        self._content: FolderContent | None = None
        self._shelf = StyleShelf()

    async def shelf(self) -> StyleShelf:
        """Return the styles and the files that are none."""
        content = await self._folder.look()
        if content is not self._content:
            self._shelf, settled = await self._read(content)
            self._content = content if settled else None  # a file in the editor's format is read when a backend has described its nodes
        return self._shelf

    async def find(self, name: str | None) -> NamedWorkflow:
        """Return a style; without a name the default one, or the first where that is not there.

        Raises:
            StyleNotFound: there is none of that name; says which there are, or why its file is none.
        """
        shelf = await self.shelf()
        if name is None:
            name = DEFAULT_STYLE if DEFAULT_STYLE in shelf.styles else next(iter(shelf.styles), DEFAULT_STYLE)
        found = shelf.styles.get(name)
        if found is None:
            reason = next((problem.reason for problem in shelf.problems if problem.file in {f"{name}.json", f"{name}.yaml"}), None)
            why = f"its file is broken: {reason}" if reason else f"there is {', '.join(shelf.styles) or 'none'}"
            raise StyleNotFound(f"there is no style {name[:64]!r}: {why}")
        return found

    async def _read(self, content: FolderContent) -> tuple[StyleShelf, bool]:
        styles: dict[str, NamedWorkflow] = {}
        problems = list(content.problems)
        settled = True
        for name, file in content.files.items():
            try:
                styles[name] = await self._style(file)
            except ServiceError as error:
                settled = settled and not isinstance(error, ObjectInfoNeeded)
                problems.append(FileProblem(f"{name}.json", str(error)))
        return StyleShelf(styles, tuple(problems)), settled

    async def _style(self, file: WorkflowFile) -> NamedWorkflow:
        graph, info = await self._planner.to_graph(file.graph)
        meta = with_sketch(graph, file.meta, info)
        wrong = binding_problems(graph, meta, info)
        if wrong:
            raise InvalidInput(f"its description names places that the graph does not have: {wrong[0].message}")
        return NamedWorkflow(file.name, None, graph, meta)
