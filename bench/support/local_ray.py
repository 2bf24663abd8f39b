"""A Ray cluster of this machine alone, for one measurement, with a data folder that goes with it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",  # Ray's own ports listen on every interface, whatever it is told
    "LOG_LEVEL": "WARNING",
    "ATELIER_STORE__MAX_QUEUED": "1000000",  # nobody takes the jobs of a measurement of submits
}


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """Make a folder on the disk of the temporary files (TMPDIR moves it), and remove it at the end.

    Its path is short, because the sockets of Ray lie below it and the path of a socket holds 107 bytes.
    """
    folder = Path(tempfile.mkdtemp(prefix="atelier-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def local_ray(folder: Path) -> Iterator[None]:
    """Start Ray with the application's settings pointing into ``folder``; stop it at the end."""
    os.environ.update(ENVIRONMENT, ATELIER_DATA_DIR=str(folder / "data"), RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray  # reads the environment when it is imported

    ray.init(
        address="local",
        _temp_dir=str(folder / "ray"),
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
        namespace="atelier",
    )
    try:
        yield
    finally:
        ray.shutdown()
