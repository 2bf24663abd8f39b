"""The names that older services have for ComfyUI servers, the file's and the environment's."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from serve_app.comfyui_names import address_of, one_meaning
from serve_app.settings import Settings

NAMES = (
    "COMFYUI_URL",
    "COMFYUI_COMFYUI_SERVER",
    "COMFYUI_HOST",
    "COMFYUI_PORT",
    "COMFYUI_SERVER",
    "COMFYUI_CLIENT_ID",
    "DEBUG",
    "LOG_LEVEL",
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in (*NAMES, "APP_ENV"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "configs").mkdir()
    for name in ("base", "development"):
        (tmp_path / "configs" / f"{name}.yaml").write_text("{}")
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [("", "", ""), ("gpu1", "", "gpu1:8188"), ("", "9000", "127.0.0.1:9000"), ("gpu1", "9000", "gpu1:9000"), ("::1", "", "[::1]:8188")],
)
def test_address_of_fills_in_the_part_that_is_left_out(host, port, address):
    assert address_of(host, port) == address


def test_one_meaning_is_the_first_that_is_set():
    assert one_meaning({"A": (), "B": ("gpu1:8188",), "C": ("http://gpu1:8188/",)}) == ("gpu1:8188",)
    assert one_meaning({"A": (), "B": ()}) == ()


def test_one_meaning_takes_servers_in_any_order():
    assert one_meaning({"A": ("gpu1:1", "gpu2:2"), "B": ("gpu2:2", "gpu1:1#name=one")}) == ("gpu1:1", "gpu2:2")


def test_one_meaning_names_two_that_differ_and_shows_no_address():
    with pytest.raises(ValueError, match=r"^A and C name different ComfyUI servers: set one of them, or both alike$"):
        one_meaning({"A": ("gpu1:8188",), "B": (), "C": ("secret:8188",)})


def test_one_meaning_names_what_is_no_server():
    with pytest.raises(ValueError, match="B: the port of a ComfyUI server is a number"):
        one_meaning({"A": ("gpu1:8188",), "B": ("gpu1:port",)})


@pytest.mark.parametrize(
    ("environment", "urls"),
    [
        ({}, []),
        ({"COMFYUI_COMFYUI_SERVER": "gpu1:8188"}, ["http://gpu1:8188"]),
        ({"COMFYUI_HOST": "gpu1"}, ["http://gpu1:8188"]),
        ({"COMFYUI_PORT": "9000"}, ["http://127.0.0.1:9000"]),
        ({"COMFYUI_SERVER": "http://gpu1:8188"}, ["http://gpu1:8188"]),
        ({"COMFYUI_SERVER": "https://gpu1", "COMFYUI_URL": "https://gpu1:443"}, ["https://gpu1:443"]),
        ({"COMFYUI_URL": "gpu1:8188#name=a", "COMFYUI_HOST": "gpu1", "COMFYUI_PORT": "8188"}, ["http://gpu1:8188"]),
    ],
)
def test_settings_take_every_name(monkeypatch, environment, urls):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert [spec.url for spec in Settings().comfyui.specs()] == urls


def test_settings_refuse_names_that_differ(monkeypatch):
    monkeypatch.setenv("COMFYUI_URL", "gpu1:8188")
    monkeypatch.setenv("COMFYUI_PORT", "8188")
    with pytest.raises(ValidationError, match="COMFYUI_URL and COMFYUI_HOST and COMFYUI_PORT name different ComfyUI servers"):
        Settings()


def test_settings_take_the_client_id_as_the_prefix(monkeypatch):
    monkeypatch.setenv("COMFYUI_CLIENT_ID", "studio-1")
    assert Settings().comfyui.client_id_prefix == "studio-1"
    monkeypatch.setenv("COMFYUI_CLIENT_ID", "studio 1")
    with pytest.raises(ValidationError, match="comfyui_client_id"):
        Settings()


@pytest.mark.parametrize(
    ("environment", "level"),
    [
        ({"DEBUG": "True"}, "DEBUG"),
        ({"DEBUG": "1"}, "DEBUG"),
        ({"DEBUG": "app:*"}, "INFO"),  # of another program
        ({"DEBUG": "false"}, "INFO"),
        ({"DEBUG": "true", "LOG_LEVEL": "warning"}, "WARNING"),
    ],
)
def test_debug_raises_the_log_level_unless_that_is_set(monkeypatch, environment, level):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings().log_level == level


@pytest.mark.parametrize(
    ("text", "enabled"), [("tasks", {"tasks"}), ("tasks, gateway", {"tasks", "gateway"}), ('["middleware"]', {"middleware"})]
)
def test_dialects_are_listed_with_commas_or_as_json(monkeypatch, text, enabled):
    monkeypatch.setenv("ATELIER_DIALECTS__ENABLED", text)
    assert Settings().dialects.enabled == enabled


def test_dialects_refuse_an_unknown_name(monkeypatch):
    monkeypatch.setenv("ATELIER_DIALECTS__ENABLED", "tasks,sketch")
    with pytest.raises(ValidationError, match=r"dialects\.enabled"):
        Settings()


def test_the_gateways_status_has_a_name_of_its_own(monkeypatch):
    monkeypatch.setenv("GATEWAY_HTTP_STATUS", "mapped")
    assert Settings().dialects.gateway_http_status == "mapped"
