"""cluster.yaml against the schema that the Ray cluster launcher itself checks it with."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def test_cluster_yaml_is_valid_for_the_launcher(cluster):
    schema = json.loads(files("ray.autoscaler").joinpath("ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(schema).validate(cluster)


def test_cluster_yaml_names_a_head_and_workers_within_bounds(cluster):
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] in types
    assert sum(node["max_workers"] for node in types.values()) <= cluster["max_workers"]


def test_cluster_yaml_installs_by_targets_that_the_makefile_has(cluster):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = cluster["head_setup_commands"] + cluster["worker_setup_commands"]
    extras = [re.fullmatch(r"cd ~/atelier && make \.venv/\.synced-(\w+) EXTRA=\1", command)[1] for command in commands]
    assert extras == ["cpu", "gpu"]
    assert "RUNTIME := .venv/.synced-$(EXTRA)" in makefile
    assert "\n$(RUNTIME): requirements-$(EXTRA).lock" in makefile


def test_cluster_yaml_keeps_the_dashboard_on_loopback(cluster):
    (start,) = [command for command in cluster["head_start_ray_commands"] if "ray start" in command]
    assert "--dashboard-host=127.0.0.1" in start
