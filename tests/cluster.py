"""A Ray cluster of its own for tests, deployed to as an operator does: ``ray start --head``, then ``serve deploy``."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

HOME = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent
START_TIMEOUT_S = 180.0  # two busy cores; a quiet machine takes a quarter of it

# Short enough that a lost worker is noticed within a test's patience, long enough that a busy machine does not lose a living one.
LEASE_S = 6.0
FAST = {
    "ATELIER_STORE__LEASE_S": str(LEASE_S),
    "ATELIER_RUNNER__HEARTBEAT_S": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
}


class Cluster:
    """One head node, one application, one data folder that outlives both."""

    def __init__(self, folder: Path, environment: Mapping[str, str], pool: Mapping[str, Any]) -> None:
        """Prepare.

        Args:
            folder: for the data, outside of the tree.
            environment: settings of the application, besides ``FAST``.
            pool: options of the face-swap pool that differ from ``serve_config.yaml``.
        """
        self.data_dir = folder / "data"
        self._folder = folder
        self._pool = dict(pool)
        self._token = secrets.token_hex(32)
        # Ray's sockets lie below it, and the path of a socket holds 107 bytes.
        self._ray_dir = Path(tempfile.mkdtemp(prefix="atelier-", dir="/tmp"))
        self.port, self._gcs_port, self._dashboard_port, self._metrics_port = (free_port() for _ in range(4))
        self.url = f"http://127.0.0.1:{self.port}"
        self.metrics_url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        self.address = f"127.0.0.1:{self._gcs_port}"
        self.environment = {
            **os.environ,
            **FAST,
            # Ray's own ports listen on every interface of the machine, whatever address it is given.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "ATELIER_DATA_DIR": str(self.data_dir),
            "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
            **environment,
        }

    def start(self) -> None:
        """Start the head node and deploy; returns when the application is ready for work."""
        self._run(
            "ray", "start", "--head", f"--port={self._gcs_port}", "--node-ip-address=127.0.0.1", f"--dashboard-port={self._dashboard_port}",
            "--dashboard-host=127.0.0.1", "--num-cpus=8", "--object-store-memory=200000000", f"--temp-dir={self._ray_dir}",
            "--disable-usage-stats", f"--metrics-export-port={self._metrics_port}",
        )  # fmt: skip
        self.deploy()

    def deploy(self) -> None:
        """Send the configuration to the cluster from a folder that knows nothing of the tree."""
        config = yaml.safe_load((HOME / "serve_config.yaml").read_text("utf-8"))
        config["http_options"]["port"] = self.port
        config["applications"][0]["args"]["pools"]["faceswap"] |= self._pool
        path = self._folder / "deployed.yaml"
        path.write_text(yaml.safe_dump(config), "utf-8")
        self._run("serve", "deploy", str(path), "--address", f"http://127.0.0.1:{self._dashboard_port}")
        self.wait_until_ready()

    def redeploy(self, pool: Mapping[str, Any]) -> None:
        """Deploy again with other options of the pool, which rolls its replicas; returns when the ingress is a new one.

        The old one answers until the new application is built, and a request that is in it when it stops may be lost.
        """
        title = "ray::ServeReplica:atelier:Ingress"
        before = set(self.pids(title))
        self._pool |= pool
        self.deploy()
        wait_until(lambda: (now := set(self.pids(title))) and not now & before, START_TIMEOUT_S, "the ingress is not rolled", self.status)
        self.wait_until_ready()

    def python(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script as another job of this cluster."""
        command = [sys.executable, "-c", script, *arguments]
        environment = self.environment | {"RAY_ADDRESS": self.address, "PYTHONPATH": str(HOME)}
        return subprocess.run(command, cwd=self._folder, env=environment, capture_output=True, text=True, timeout=100, check=False)

    def wait_until_ready(self) -> None:
        """Return when the ingress answers ``/ready`` with 200."""
        wait_until(self._ready, START_TIMEOUT_S, "the application is not ready", self.status)

    def status(self) -> str:
        """Return what ``serve status`` prints."""
        return self._run("serve", "status", "--address", f"http://127.0.0.1:{self._dashboard_port}")

    def logs(self, *patterns: str) -> list[Path]:
        """Return the log files of the running session that fit a pattern."""
        return [path for pattern in patterns for path in (self._ray_dir / "session_latest" / "logs").glob(pattern)]

    def pids(self, title: str) -> list[int]:
        """Return the processes of this cluster whose title starts with ``title``, such as ``ray::ServeReplica:atelier:FaceSwap``."""
        return [pid for pid, command in self._processes() if command.startswith(title)]

    def kill(self, title: str) -> None:
        """``kill -9`` one process by its title."""
        found = self.pids(title)
        assert found, f"no process {title} among {[command[:80] for _, command in self._processes()]}"
        os.kill(found[0], signal.SIGKILL)

    def kill_everything(self) -> None:
        """``kill -9`` every process of the cluster, as a power cut would."""
        for _ in range(20):
            pids = [pid for pid, _ in self._processes()]
            if not pids:
                return
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.1)  # a raylet may have started another worker in between
        raise AssertionError("the cluster does not die")

    def remove(self) -> None:
        """Leave nothing behind."""
        self.kill_everything()
        shutil.rmtree(self._ray_dir, ignore_errors=True)

    def _ready(self) -> bool:
        try:
            dashboard = f"http://127.0.0.1:{self._dashboard_port}/api/serve/applications/"
            application = httpx.get(dashboard, headers={"Authorization": f"Bearer {self._token}"}, timeout=5).json()["applications"]
            assert application.get("atelier", {}).get("status") != "DEPLOY_FAILED", self.status()
            return httpx.get(f"{self.url}/ready", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Find this cluster's processes by its data folder in their environment, or its folder in their command line."""
        ours = (f"ATELIER_DATA_DIR={self.data_dir}".encode(), str(self._ray_dir).encode())
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue  # it has ended meanwhile
            if ours[0] in environment.split(b"\0") or ours[1] in command:
                yield int(entry.name), command.replace(b"\0", b" ").decode(errors="replace")

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, check=False, cwd=self._folder, env=self.environment, capture_output=True, text=True, timeout=START_TIMEOUT_S
        )
        assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}"
        return done.stdout


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Any, timeout_s: float, message: str, explain: Any = lambda: "") -> Any:
    """Poll until a condition holds and return what it answered.

    Raises:
        AssertionError: it did not within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{message} after {timeout_s:g} s\n{explain()}")
        time.sleep(0.1)
