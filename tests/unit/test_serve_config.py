"""serve_config.yaml against Serve's own schema and against ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.jobs.spec import POOLS
from serve_app.placement import AppArgs

SERVE_CONFIG = Path(__file__).parents[2] / "serve_config.yaml"


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return yaml.safe_load(SERVE_CONFIG.read_text(encoding="utf-8"))


def test_serve_config_is_valid_for_serve(config):
    schema = pytest.importorskip("ray.serve.schema")
    (application,) = schema.ServeDeploySchema.model_validate(config).applications
    assert (application.name, application.route_prefix, application.import_path) == ("atelier", "/", "serve_app.main:build_app")


def test_serve_config_args_are_valid_for_the_builder(config):
    args = AppArgs.model_validate(config["applications"][0]["args"])
    assert set(args.pools) == POOLS


def test_serve_config_leaves_placement_to_the_builder(config):
    assert "deployments" not in config["applications"][0]


def test_serve_config_listens_on_loopback_and_logs_json(config):
    assert config["http_options"]["host"] == "127.0.0.1"
    assert config["logging_config"]["encoding"] == "JSON"
