"""A ComfyUI of the replica's own: the fake plays the program. It is watched, started again, and never outlives its replica."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.comfyui_bridge.config import ManagedConfig
from deployments.comfyui_bridge.managed import ManagedServer, OwnServer
from deployments.jobs.errors import EngineFailed
from tests.workflows import collect, empty_image, pixel

HOME = Path(__file__).resolve().parents[4]
MAIN = f"import sys\nsys.path.insert(0, {str(HOME)!r})\nfrom deployments.fake_comfyui.__main__ import main\nsys.exit(main())\n"

pytestmark = pytest.mark.slow  # each starts a process that imports OpenCV


@pytest.fixture
def install(tmp_path):
    """A folder that looks like an installed ComfyUI."""
    folder = tmp_path / "ComfyUI"
    folder.mkdir()
    (folder / "main.py").write_text(MAIN)
    return folder


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Announcements:
    """A registry that hears of own servers."""

    newest = None

    async def announce_backend(self, owner, spec, health):
        self.newest = spec


async def until(condition, timeout_s=30.0):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.05)


async def test_jobs_run_on_the_replicas_own_server_which_is_started_again_when_it_dies(install, build_bridge, task):
    server = ManagedServer(ManagedConfig(directory=install, arguments=("--cpu", "--step-s", "0.01")), "replica-1")
    await server.start()
    try:
        registry = Announcements()
        async with build_bridge(OwnServer(server, ("mine",), registry)) as bridge:
            found = await collect(bridge.engine, task(empty_image(color=7), job_id="first"))
            assert pixel(found.files[0].path) == (0, 0, 7)
            killed = server.pid
            os.kill(killed, signal.SIGKILL)
            await until(lambda: bridge.fleet.size == 0)
            await until(lambda: bridge.fleet.size == 2)
            assert server.pid not in {None, killed}
            found = await collect(bridge.engine, task(empty_image(color=8), job_id="second"))
            assert pixel(found.files[0].path) == (0, 0, 8)
            server.check()
            assert registry.newest.name == "managed-replica1"
            assert (registry.newest.tags, registry.newest.url) == (("mine",), server.url)
    finally:
        pid = server.pid
        await server.stop()
    assert not is_alive(pid)


async def test_a_folder_without_comfyui_is_an_error_that_names_the_setting(tmp_path):
    with pytest.raises(EngineFailed, match="ATELIER_COMFYUI__MANAGED__DIRECTORY"):
        await ManagedServer(ManagedConfig(directory=tmp_path), "replica-1").start()


async def test_a_program_that_ends_at_once_is_an_error(tmp_path):
    (tmp_path / "main.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(EngineFailed, match="status 3"):
        await ManagedServer(ManagedConfig(directory=tmp_path), "replica-1").start()


async def test_a_killed_replica_takes_its_server_along(install):
    script = (
        "import asyncio, sys\n"
        f"sys.path.insert(0, {str(HOME)!r})\n"
        "from pathlib import Path\n"
        "from deployments.comfyui_bridge.config import ManagedConfig\n"
        "from deployments.comfyui_bridge.managed import ManagedServer\n"
        "async def main():\n"
        "    server = ManagedServer(ManagedConfig(directory=Path(sys.argv[1])), 'replica')\n"
        "    await server.start()\n"
        "    sys.stderr.write(f'pid={server.pid}\\n')\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", script, str(install)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as replica:  # noqa: ASYNC220 -- a test
        line = await asyncio.to_thread(lambda: next(line for line in replica.stderr if line.startswith("pid=")))
        pid = int(line.removeprefix("pid="))
        assert is_alive(pid)
        replica.kill()
        await until(lambda: not is_alive(pid))
