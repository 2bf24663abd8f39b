"""ONNX Runtime sessions: one place that picks the device, the threads and the log level, and that refuses a silent fall back to the CPU."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field

from deployments.jobs.errors import EngineFailed

RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
SEVERITY_ERROR = 3  # SFace alone writes hundreds of warnings about initialisers at level 2

PROVIDERS: dict[str, list[str]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],  # the second takes the operators that the first lacks
}


class SessionConfig(BaseModel):
    """Where models run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["cpu", "cuda"] = Field("cpu", description="cuda is never replaced by the CPU in silence: without it the start fails")
    intra_op_threads: int = Field(2, ge=1, le=64, description="CPU threads of one session; explicit, since Ray sets OMP_NUM_THREADS=1")


def open_session(model: Path | bytes, config: SessionConfig) -> ort.InferenceSession:
    """Open a model on the configured device.

    Args:
        model: path of an ONNX file, or its bytes.
        config: device and threads.

    Raises:
        EngineFailed: both runtimes are installed, the device is not there, or the model cannot be read.
    """
    check_one_runtime()
    ort.set_default_logger_severity(SEVERITY_ERROR)  # before the first session, or its optimiser has already written
    _check_device(ort.get_available_providers(), config)
    if config.device == "cuda":
        ort.preload_dlls()  # the CUDA libraries of the gpu extra lie in site-packages, where the loader does not look
    try:
        session = ort.InferenceSession(
            model if isinstance(model, bytes) else str(model), _session_options(config), providers=PROVIDERS[config.device]
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise EngineFailed(f"ONNX Runtime cannot open {_name_of(model)}: {_first_line(error)}") from error
    _check_device(session.get_providers(), config)  # a provider that is built in may still fail to load, and then is left out
    return session


def check_one_runtime() -> None:
    """Refuse an environment with both builds of ONNX Runtime: they share one folder, and whichever came last is what runs.

    Raises:
        EngineFailed: both are installed.
    """
    if all(_installed(name) for name in RUNTIMES):
        raise EngineFailed(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "remove both with `pip uninstall onnxruntime onnxruntime-gpu`, then install one of the extras cpu or gpu"
        )


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _session_options(config: SessionConfig) -> Any:  # noqa: ANN401 -- onnxruntime has no types
    options = ort.SessionOptions()
    options.intra_op_num_threads = config.intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = SEVERITY_ERROR
    return options


def _check_device(providers: list[str], config: SessionConfig) -> None:
    if PROVIDERS[config.device][0] not in providers:
        raise EngineFailed(
            f"the device {config.device} was asked for but ONNX Runtime offers {', '.join(providers)}: "
            "install the gpu extra on a machine with an NVIDIA driver, or set the device to cpu"
        )


def _name_of(model: Path | bytes) -> str:
    return "a model in memory" if isinstance(model, bytes) else model.name


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
