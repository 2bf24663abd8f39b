"""The application on this machine, for one measurement: ``atelier serve`` as a child process, at an address of its own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from serve_app.client import Client
from serve_app.service_process import ServiceProcess


@contextlib.contextmanager
def running_service(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run the application and yield its URL once it takes work.

    Args:
        folder: for its data and its log.
        environment: settings besides those of every measurement.

    Raises:
        ServiceFailed: it did not start.
    """
    port = free_port()
    ours = {"ATELIER_DATA_DIR": str(folder / "data"), "RAY_USAGE_STATS_ENABLED": "0", "LOG_LEVEL": "WARNING", **environment}
    process = ServiceProcess("127.0.0.1", port, folder / "serve.log", ours)
    url = f"http://127.0.0.1:{port}"
    try:
        with Client(url) as client:
            process.wait_until_ready(client, lambda _: None)
        yield url
    finally:
        process.stop()


def haproxy_environment(folder: Path) -> dict[str, str]:
    """Return what makes Serve put HAProxy in front. Its port for metrics listens on every interface, whatever address Serve is given.

    Its files and ports are this run's own, because their defaults are one set for the whole machine. Serve puts the node's id, which is
    56 characters long, before each file's name, and the path of a socket of HAProxy holds 97: so the names are short.
    """
    own = folder / "h"
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(own / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(own / "a"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(own / "m"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(own),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(own / "state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    }


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
