"""The workflow of the demo: which one a service can run, one run of it, and a check of what it has made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from deployments.engines.images import BgrImage
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import load_picture, picture_size
from serve_app.client import Client, JsonObject
from serve_app.progress import JobProgress
from serve_app.settings import Settings

FAKE_NAME = "demo-fake"  # of the backend that the demo brings along
STAND_IN = "no model: the picture is a stand-in"
DRAWN_SIZE = (640, 448)  # not what the workflow has by itself: a picture of this size was asked for
BACKEND_TIMEOUT_S = 30.0  # until a backend has been looked at; one that a dead replica drove is free after a lease of 15 s
POLL_S = 0.5
ROUNDING = 1  # of 255: ComfyUI computes with fractions and cuts them off
STAMPED = 0.05  # share of a picture that a fake backend may cover with the words that say so


class DemoFailed(Exception):
    """The demo did not do what it should; the text says what."""


@dataclass(frozen=True)
class Errand:
    """What is asked of a workflow."""

    workflow: str
    inputs: JsonObject
    size: tuple[int, int]  # width and height that the picture should have
    inverted: Path | None = None  # the picture whose negative it should be


@dataclass(frozen=True)
class Run:
    """One run of a workflow and what came of it."""

    errand: Errand
    backend: str
    fake: bool
    result: Path
    picture: BgrImage
    seconds: float  # from submit until the file was here


class WorkflowDemo:
    """Runs one workflow on a service, if that has a ComfyUI server."""

    def __init__(self, settings: Settings, console: Console, source: Path) -> None:
        """Prepare.

        Args:
            settings: of the demo.
            console: where it is said what is done.
            source: the picture that is inverted where nothing can be drawn.
        """
        self._settings = settings
        self._console = console
        self._source = source
        self._folder = settings.data_dir / "demo"

    def run(self, client: Client, progress: JobProgress, source_id: str) -> Run | None:
        """Run a workflow on one of the service's backends; None where it has none.

        Args:
            client: of the service.
            progress: shows the job.
            source_id: of the source picture, uploaded.

        Raises:
            DemoFailed: the job did not succeed, or the demo's own backend takes none.
            ApiError: the service refused something.
            InvalidInput: the result is no picture.
        """
        backends = self._wait_for_backends(client)
        usable = [backend for backend in backends if backend["healthy"] and not backend["draining"]]
        if not usable and not self._settings.comfyui.managed.enabled:  # a managed server may start only when there is a job
            self._say_why_not([backend["name"] for backend in backends])
            return None
        drawn = bool(usable) and all(backend["fake"] for backend in usable)
        if drawn:
            self._console.print(f"The workflow runs on a fake backend ({STAND_IN}).")
        errand = drawing() if drawn else self._inversion(source_id)
        return self._run(client, progress, errand, fakes={backend["name"] for backend in backends if backend["fake"]})

    def _wait_for_backends(self, client: Client) -> Sequence[JsonObject]:
        """Return the service's backends once one of them is healthy, or after a while: the first look at them takes its time."""
        give_up_at = time.monotonic() + BACKEND_TIMEOUT_S
        while True:
            backends: list[JsonObject] = client.capabilities()["backends"]
            if not backends or any(backend["healthy"] for backend in backends) or time.monotonic() > give_up_at:
                return backends
            time.sleep(POLL_S)

    def _say_why_not(self, names: Sequence[str]) -> None:
        if FAKE_NAME in names:
            raise DemoFailed("the fake backend is there and takes no jobs: see /v1/admin/backends of the service")
        reason = f"none of {', '.join(names)} takes jobs" if names else "the service has none"
        self._console.print(f"No workflow is run, for want of a ComfyUI server: {reason}. COMFYUI_URL says where one is.")

    def _inversion(self, source_id: str) -> Errand:
        """Return what every server can do: a real one may lack the models that drawing takes."""
        return Errand("invert", {"image": {"file_id": source_id}}, picture_size(self._source, self._settings.media), self._source)

    def _run(self, client: Client, progress: JobProgress, errand: Errand, fakes: set[str]) -> Run:
        began = time.monotonic()
        request = {"kind": "comfyui", "workflow": errand.workflow, "inputs": errand.inputs, "labels": {"made-by": "demo"}}
        job = progress.follow(client, client.submit(request)["id"], f"workflow {errand.workflow}")
        output, backend = output_of(job, errand.workflow), job["attempts"][-1]["facts"]["backend"]
        result = self._folder / f"{errand.workflow}{Path(output['name']).suffix}"
        progress.download(client, output, result)
        seconds = time.monotonic() - began
        return Run(errand, backend, backend in fakes, result, load_picture(result, self._settings.media), seconds)


def drawing() -> Errand:
    """Return what shows a workflow at its best: it has a sampler, whose steps can be followed."""
    width, height = DRAWN_SIZE
    return Errand("text-to-image", {"prompt": "a lighthouse at dusk", "width": width, "height": height}, DRAWN_SIZE)


def output_of(job: JsonObject, title: str) -> JsonObject:
    """Return the one result of a job.

    Raises:
        DemoFailed: it did not succeed, or has another number of results.
    """
    if job["status"] != "succeeded":
        reason = f": {job['error']['message']}" if job["error"] else ""
        raise DemoFailed(f"the job {job['id']} for {title} is {job['status']}{reason}")
    if len(job["outputs"]) != 1:
        raise DemoFailed(f"the job {job['id']} for {title} has {len(job['outputs'])} results instead of 1")
    output: JsonObject = job["outputs"][0]
    return output


def to_run_table(run: Run) -> Table:
    """Lay out what a workflow has made, and whether a model had a part in it."""
    table = Table("workflow", "backend", "picture", "seconds")
    made = f"negative of {run.errand.inverted.name}" if run.errand.inverted else "stand-in" if run.fake else "drawn"
    height, width = run.picture.shape[:2]
    table.add_row(
        run.errand.workflow, f"{run.backend} (fake)" if run.fake else run.backend, f"{width}x{height}, {made}", f"{run.seconds:.1f}"
    )
    return table


def check_run(run: Run) -> None:
    """Judge what a workflow has made.

    Raises:
        DemoFailed: it has another size, or is not the negative of the picture that went in.
    """
    height, width = run.picture.shape[:2]
    if (width, height) != run.errand.size:
        wanted = "x".join(map(str, run.errand.size))
        raise DemoFailed(f"{run.result.name}: is a picture of {width}x{height} instead of {wanted}")
    if run.errand.inverted and _share_not_inverted(run.errand.inverted, run.picture) > (STAMPED if run.fake else 0.0):
        raise DemoFailed(f"{run.result.name}: is not the negative of {run.errand.inverted.name}")


def _share_not_inverted(before: Path, picture: BgrImage) -> float:
    """Return the share of pixels that are not what the same pixel of the file ``before`` lacks to white."""
    wanted = 255 - load_picture(before, MediaLimits()).astype(np.int16)
    return float((np.abs(wanted - picture) > ROUNDING).any(axis=2).mean())
