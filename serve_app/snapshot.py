"""The OpenAPI document of this release, dialects and shipped workflows included: ``python -m serve_app.snapshot`` writes it anew."""

from __future__ import annotations

import json
from pathlib import Path

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.engines.comfyui.workflow_file import load_workflow_folder
from deployments.jobs.model import JsonObject
from serve_app.api.app import build_app
from serve_app.api.config import ApiConfig
from serve_app.api.openapi import describe_workflows
from serve_app.dialects.chosen import build_dialects
from serve_app.dialects.config import DialectsConfig

SNAPSHOT = Path("docs/openapi.json")
SHIPPED_WORKFLOWS = Path("workflows")


def to_text(document: JsonObject) -> str:
    """Return the snapshot's text: one line a fact, so that a diff can be read."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def build_snapshot(workflows: Path = SHIPPED_WORKFLOWS) -> JsonObject:
    """Return the document of the API as it is in the code, with the workflows of a folder.

    Raises:
        ValueError: a file of the folder cannot be read.
    """
    files, problems = load_workflow_folder(workflows)
    if problems:
        raise ValueError(f"{problems[0].file}: {problems[0].reason}")
    dialects = build_dialects(DialectsConfig())
    named = [NamedWorkflow(file.name, None, file.graph, file.meta) for file in files]
    return describe_workflows(build_app(ApiConfig(), dialects).openapi(), dialects, named)


def write_snapshot(path: Path = SNAPSHOT) -> None:
    """Write the document anew."""
    path.write_text(to_text(build_snapshot()), encoding="utf-8")


if __name__ == "__main__":
    write_snapshot()
