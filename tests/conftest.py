"""The one Ray cluster of a test session, and the sample media."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cluster import Cluster

MEDIA = Path(__file__).parent / "media"


@pytest.fixture(scope="session")
def media() -> Path:
    """Folder of the sample pictures and clips."""
    return MEDIA


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster that all tests share: it scales to zero after two seconds without work."""
    pool = {
        "min_replicas": 0,
        "max_replicas": 2,
        "downscale_delay_s": 2,
        "downscale_to_zero_delay_s": 2,
        "upscale_delay_s": 0,
        "target_wait_s": None,
    }
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), {}, pool)
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
