"""How Duix services are written down."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from deployments.duix_bridge.config import DuixConfig, parse_upstream
from deployments.duix_bridge.upstreams import Upstreams
from deployments.jobs.ports import NoMetrics, SystemClock


def test_a_service_needs_no_more_than_its_address():
    spec = parse_upstream("gpu1:8383/")
    assert (spec.url, spec.data_dir, spec.results) == ("http://gpu1:8383", None, None)
    assert "gpu1" not in spec.name, "clients see the name"


def test_each_may_have_a_folder_of_its_own_and_the_others_have_the_common_one():
    config = DuixConfig(upstreams=("http://a:8383#data_dir=/mnt/a", "http://b:8383"), data_dir=Path("/data"))
    assert [spec.data_dir for spec in config.specs()] == [Path("/mnt/a"), Path("/data")]


def test_where_results_come_by_url_no_folder_is_asked_for():
    config = DuixConfig(upstreams=("http://a:8383#results=http://a:8090/temp/",), offer_url="http://10.0.0.5:8386")
    (spec,) = config.specs()
    assert (spec.data_dir, spec.results) == (None, "http://a:8090/temp")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://a:8383", "is written http"),
        ("http://user:secret@a:8383", "without a user"),
        ("http://a:8383#speed=2", "no option speed"),
        ("http://a:8383#data_dir=/a&results=http://a/", "not by both"),
        ("http://a:8383#name=GPU 1", "1 to 64"),
        ("http://a:8383#results=/mnt", "http URL of the folder"),
    ],
)
def test_what_is_none_is_refused_with_what_to_do(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        parse_upstream(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"upstreams": ("http://a:8383", "http://a:8383/")}, "two Duix services have the name"),
        ({"upstreams": ("http://a:8383#results=http://a/t",)}, "OFFER_URL"),
        ({"offer_url": "10.0.0.5"}, "http://host:port"),
        ({"offer_url": "http://10.0.0.5"}, "http://host:port"),
    ],
)
def test_settings_that_do_not_fit_stop_the_start(settings, said):
    with pytest.raises(ValidationError, match=said):
        DuixConfig(**settings)


def test_a_data_folder_that_is_not_there_stops_the_replica(tmp_path):
    config = DuixConfig(upstreams=("http://a:8383",), data_dir=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="DUIX_DATA_DIR"):
        Upstreams(config, NoMetrics(), SystemClock())
