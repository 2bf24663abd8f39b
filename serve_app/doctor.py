"""What can be wrong with an installation, looked at without starting anything; each finding says what to do."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from serve_app.client import Client

if TYPE_CHECKING:
    from deployments.comfyui_bridge.config import ComfyConfig
    from deployments.duix_bridge.config import DuixConfig, UpstreamSpec
    from deployments.engines.face2face.config import Face2FaceConfig
    from deployments.jobs.model import BackendSpec
    from deployments.storage.factory import StorageConfig

PYTHONS = ((3, 11), (3, 12), (3, 13))
FSYNC_LIMIT_MS = 50.0  # a job is accepted after one fsync; a network disk may need longer and slows every submit
FSYNC_SAMPLES = 20
BACKEND_TIMEOUT_S = 5.0  # for a ComfyUI or Duix server to connect, and between two bytes: somebody waits


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    name: str
    ok: bool
    text: str  # what was found; for a failure, what to do about it


def examine() -> Iterator[Finding]:
    """Yield the findings, cheapest first. What needs the settings is left out when they are not valid."""
    yield check_python(sys.version_info[:2])
    yield check_runtime()
    from serve_app.settings import Settings, export_keys, unknown_names, url_of  # it imports the engines, which the checks above are about

    try:
        settings = Settings()
    except ValueError as error:
        yield Finding("settings", ok=False, text=to_sentence(error))
        return
    export_keys(settings)
    yield check_names(unknown_names(settings.home))
    yield check_models(settings.home / "configs" / "models.yaml")
    yield check_disk(settings.data_dir)
    if settings.storage.provider != "local":
        yield check_storage(settings.storage)
    yield check_port(settings.host, settings.port, url_of(settings.host, settings.port))
    yield from check_comfyui(settings.comfyui)
    yield from check_duix(settings.duix)
    if settings.face2face.wav2lip is not None:
        yield check_wav2lip(settings.face2face)


def check_python(found: tuple[int, int]) -> Finding:
    """Look at the interpreter's version."""
    shown = ".".join(map(str, found))
    if found in PYTHONS:
        return Finding("python", ok=True, text=shown)
    return Finding("python", ok=False, text=f"{shown} is not supported: make the environment anew with Python 3.11, 3.12 or 3.13")


def check_runtime() -> Finding:
    """Look for exactly one build of ONNX Runtime."""
    found = {name: number for name in ("onnxruntime", "onnxruntime-gpu") if (number := _version(name))}
    if len(found) == 1:
        return Finding("onnx runtime", ok=True, text=" ".join(*found.items()))
    if not found:
        return Finding("onnx runtime", ok=False, text="not installed: install one of the extras cpu or gpu")
    advice = "remove both with `pip uninstall onnxruntime onnxruntime-gpu`, then install one of the extras cpu or gpu"
    return Finding("onnx runtime", ok=False, text=f"both builds are installed and overwrite each other: {advice}")


def check_names(unknown: list[str]) -> Finding:
    """Judge the environment's ``ATELIER_`` names; the values have been validated by reading them."""
    if not unknown:
        return Finding("settings", ok=True, text="valid")
    return Finding("settings", ok=False, text=f"no such setting: {', '.join(unknown)}; .env.example lists all names")


def check_models(manifest: Path) -> Finding:
    """Compare each model file with the manifest's SHA-256."""
    from deployments.engines.models import load_manifest, verified_file
    from deployments.jobs.errors import EngineFailed

    try:
        models = load_manifest(manifest)
        for model in models:
            verified_file(models, model.name)
    except EngineFailed as error:
        return Finding("models", ok=False, text=str(error))
    return Finding("models", ok=True, text=f"{len(models)} files as {manifest.name} promises")


def check_disk(folder: Path) -> Finding:
    """Write to the data folder and time how long a write takes to be safe."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        latency_ms = fsync_ms(folder)
    except OSError as error:
        return Finding("data folder", ok=False, text=f"{folder} cannot be written to ({error.strerror}): set ATELIER_DATA_DIR")
    shown = f"{folder}, fsync {latency_ms:.1f} ms"
    if latency_ms > FSYNC_LIMIT_MS:
        return Finding("data folder", ok=False, text=f"{shown} is slow, and each job waits for one: set ATELIER_DATA_DIR to a local disk")
    return Finding("data folder", ok=True, text=shown)


def fsync_ms(folder: Path) -> float:
    """Return the median time in milliseconds that a 4 KiB write takes to reach the disk.

    Raises:
        OSError: the folder cannot be written to.
    """
    times_ms = []
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        for _ in range(FSYNC_SAMPLES):
            began = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            times_ms.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times_ms)


def check_storage(config: StorageConfig) -> Finding:
    """Write an object into the bucket, read it back and delete it."""
    from deployments.jobs.errors import ServiceError
    from deployments.storage.factory import build_object_store

    try:
        asyncio.run(build_object_store(config).check())
    except ServiceError as error:
        return Finding("storage", ok=False, text=str(error))
    return Finding("storage", ok=True, text=f"{config.place} can be written, read and deleted from")


def check_port(host: str, port: int, url: str) -> Finding:
    """Look whether the service may listen there, or whether it is there already."""
    trouble = find_port_trouble(host, port)
    if trouble is None:
        return Finding("port", ok=True, text=f"{host}:{port} is free")
    with Client(url) as client:
        if client.is_atelier():
            return Finding("port", ok=True, text=f"an Atelier service answers on {host}:{port}")
    return Finding("port", ok=False, text=trouble)


def find_port_trouble(host: str, port: int) -> str | None:
    """Say why nobody can listen on an address now; None when somebody can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have just ended do not count
        try:
            probe.bind((host, port))
        except OSError as error:
            return f"{host}:{port} cannot be had ({error.strerror}): stop what listens there, or choose another with PORT"
    return None


def check_comfyui(config: ComfyConfig) -> list[Finding]:
    """Look at the folder of managed ComfyUI servers, or else ask each configured one how it is."""
    if config.managed.directory is not None:
        return [check_managed(config.managed.directory)]
    if config.backends:
        return asyncio.run(_ask_all(config.specs()))
    return [Finding("comfyui", ok=True, text="no server is configured, so workflows do not run: COMFYUI_URL says where one is")]


def check_managed(directory: Path) -> Finding:
    """Look for the program that a replica starts."""
    program = directory / "main.py"
    if program.is_file():
        return Finding("comfyui", ok=True, text=f"each replica starts {program}")
    advice = "set ATELIER_COMFYUI__MANAGED__DIRECTORY to the folder of ComfyUI's main.py"
    return Finding("comfyui", ok=False, text=f"there is no {program}: {advice}")


async def _ask_all(specs: tuple[BackendSpec, ...]) -> list[Finding]:
    return list(await asyncio.gather(*map(_ask, specs)))


async def _ask(spec: BackendSpec) -> Finding:
    from deployments.comfyui_client.config import ClientConfig
    from deployments.comfyui_client.http import ComfyHttp
    from deployments.jobs.errors import BackendLost

    http = ComfyHttp(spec.name, spec.url, ClientConfig(connect_timeout_s=BACKEND_TIMEOUT_S, request_timeout_s=BACKEND_TIMEOUT_S))
    try:
        queue, info = await http.queue(), await http.info()
    except BackendLost as error:
        return Finding("comfyui", ok=False, text=f"{error}: start ComfyUI on {spec.url}, or correct COMFYUI_URL")
    finally:
        await http.close()
    if info.version is None:
        return Finding("comfyui", ok=False, text=f"{spec.name} ({spec.url}) tells no version: it is no ComfyUI, or one that is too old")
    kind = "a fake backend, no model" if info.fake else "ComfyUI"
    waiting = len(queue.running) + len(queue.pending)
    return Finding("comfyui", ok=True, text=f"{spec.name} ({spec.url}): {kind}, version {info.version}, {waiting} in its queue")


def check_duix(config: DuixConfig) -> list[Finding]:
    """Look at the folder shared with each Duix service and ask each how it is; nothing where there is none."""
    return asyncio.run(_ask_duix(config)) if config.upstreams else []


async def _ask_duix(config: DuixConfig) -> list[Finding]:
    patient = config.model_copy(update={"connect_timeout_s": BACKEND_TIMEOUT_S, "request_timeout_s": BACKEND_TIMEOUT_S})
    return list(await asyncio.gather(*(_ask_one_duix(spec, patient) for spec in config.specs())))


async def _ask_one_duix(spec: UpstreamSpec, config: DuixConfig) -> Finding:
    from deployments.duix_bridge.client import DuixClient
    from deployments.jobs.errors import BackendLost

    if spec.data_dir is not None and not spec.data_dir.is_dir():
        return Finding(
            "duix", ok=False, text=f"the data folder {spec.data_dir} of {spec.name} is not there: mount it, or set DUIX_DATA_DIR"
        )
    client = DuixClient(spec, config)
    try:
        await client.probe()
    except BackendLost as error:
        return Finding("duix", ok=False, text=f"{error}: start the service on {spec.url}, or correct DUIX_INTERNAL_URL")
    finally:
        await client.close()
    way = f"by {spec.data_dir}" if spec.data_dir else f"from {config.offer_url} and {spec.results}"
    return Finding("duix", ok=True, text=f"{spec.name} ({spec.url}) answers; files go {way}")


def check_wav2lip(config: Face2FaceConfig) -> Finding:
    """Open the operator's Wav2Lip network."""
    from deployments.engines.face2face.wav2lip import Wav2Lip
    from deployments.jobs.errors import EngineFailed

    assert config.wav2lip is not None, "only where one is set"
    try:
        network = Wav2Lip(config.wav2lip, config.session, config.wav2lip_batch)
    except EngineFailed as error:
        return Finding("wav2lip", ok=False, text=str(error))
    return Finding("wav2lip", ok=True, text=f"{config.wav2lip.name}, {network.batch} frames at once")


def to_sentence(error: ValueError) -> str:
    """Say what is wrong with the settings in one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    found = (f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in error.errors(include_input=False))
    return "; ".join(found) + "; see .env.example"


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
