"""The one Ray cluster of a test session, and the sample media."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from deployments.fake_comfyui.child import FakeChild
from tests.cluster import Cluster
from tests.fake_duix import FakeDuix, Habits

MEDIA = Path(__file__).parent / "media"


@pytest.fixture(scope="session")
def media() -> Path:
    """Folder of the sample pictures and clips."""
    return MEDIA


@pytest.fixture(scope="session")
def media_server() -> Iterator[str]:
    """The samples behind a URL that the cluster's fetcher is allowed to reach although it is private."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=MEDIA)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def fake_backends() -> Iterator[tuple[FakeChild, ...]]:
    """Two fake ComfyUI servers as processes: the cluster's backends ``fake0`` and ``fake1``, the second one tagged ``old``."""
    with FakeChild(["--step-s", "0.05"]) as first, FakeChild(["--step-s", "0.05", "--hazard", "no_jobs_api"]) as second:
        yield first, second


@pytest.fixture(scope="session")
def duix_services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeDuix, FakeDuix]]:
    """Two fake Duix services that share a data folder with the cluster, as ``duix0`` and ``duix1``."""
    folder = tmp_path_factory.mktemp("duix")
    with FakeDuix(folder, Habits()) as first, FakeDuix(folder, Habits()) as second:
        yield first, second


@pytest.fixture(scope="session")
def cluster(
    tmp_path_factory: pytest.TempPathFactory,
    media_server: str,
    fake_backends: tuple[FakeChild, ...],
    duix_services: tuple[FakeDuix, FakeDuix],
) -> Iterator[Cluster]:
    """The cluster that all tests share: its face swap scales to zero after two seconds without work."""
    pool = {
        "min_replicas": 0,
        "max_replicas": 2,
        "downscale_delay_s": 2,
        "downscale_to_zero_delay_s": 2,
        "upscale_delay_s": 0,
        "target_wait_s": None,
    }
    environment = {
        "ATELIER_FETCH_ALLOW": f"{media_server.removeprefix('http://')},127.0.0.2",
        "COMFYUI_URL": f"{fake_backends[0].url}#name=fake0,{fake_backends[1].url}#name=fake1&tags=old",
        "ATELIER_COMFYUI__UNREACHABLE_S": "2",
        "DUIX_INTERNAL_URL": ",".join(f"{service.url}#name=duix{n}" for n, service in enumerate(duix_services)),
        "DUIX_DATA_DIR": str(duix_services[0].data_dir),
        "ATELIER_DUIX__POLL_S": "0.2",
        "ATELIER_DUIX__UNREACHABLE_S": "2",
        "ATELIER_FACE2FACE_AUTO": "mesh",
    }
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), environment, pool)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Iterator[httpx.Client]:
    """An HTTP client of the shared cluster."""
    with httpx.Client(base_url=cluster.url, timeout=90) as client:
        yield client
