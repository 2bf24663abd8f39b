"""The gateway of a Ceph cluster on this machine: a production S3 server, without a disk and without systemd.

Needs Debian's packages radosgw, ceph-mon, ceph-osd and ceph-common, and root.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool", "ceph-authtool")
START_S = 90.0

CONFIG = """
[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{mon}]
public addr = 127.0.0.1
ms bind msgr2 = false
ms bind port min = {lowest}
ms bind port max = {highest}
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
osd objectstore = memstore
memstore device bytes = 2147483648
run dir = {folder}
log file = {folder}/$name.log
keyring = {folder}/keyring
mon data = {folder}/mon
osd data = {folder}/osd
rgw frontends = beast ssl_endpoint=127.0.0.1:{gateway} ssl_certificate={certificate} ssl_private_key={key}
"""


def missing_programs() -> list[str]:
    """Return what would have to be installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def radosgw(folder: Path, certificate: Path, key: Path, access: str, secret: str) -> Iterator[str]:
    """Run a monitor, one store in memory and a gateway over TLS, and yield the gateway's URL."""
    fsid, mon, gateway = str(uuid.uuid4()), _free_port(), _free_port()
    config = folder / "ceph.conf"
    ports = {"mon": mon, "gateway": gateway, "lowest": 20_000, "highest": 29_000}
    config.write_text(CONFIG.format(fsid=fsid, folder=folder, certificate=certificate, key=key, **ports))

    def run(*command: str) -> None:
        done = subprocess.run([command[0], "-c", str(config), *command[1:]], capture_output=True, text=True, timeout=START_S, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-2000:]}"

    def tool(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=START_S)

    keyring, monmap = str(folder / "keyring"), str(folder / "monmap")
    tool("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v1:127.0.0.1:{mon}]", monmap)
    tool("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    (folder / "osd").mkdir()
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
    with ExitStack() as stack:
        stack.enter_context(_daemon(config, "ceph-mon", "-i", "a"))
        osd = str(uuid.uuid4())
        run("ceph", "osd", "new", osd)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        stack.enter_context(_daemon(config, "ceph-osd", "-i", "0"))
        run("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=h")
        process = stack.enter_context(_daemon(config, "radosgw", "-n", "client.rgw.a"))
        names = ("--uid=test", "--display-name=test", f"--access-key={access}", f"--secret-key={secret}")
        run("radosgw-admin", "user", "create", *names)
        _wait_for(gateway, process)
        yield f"https://127.0.0.1:{gateway}"


@contextmanager
def _daemon(config: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [command[0], "-c", str(config), "-f", *command[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, "radosgw has ended"
        assert time.monotonic() < until, "radosgw does not listen"
        time.sleep(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def is_asked_for() -> bool:
    """Whether the tests of S3 are to be run against it: it takes a minute to install and a quarter of one to start."""
    return os.environ.get("S3_TEST_SERVER") == "radosgw"
