"""The demo: one face into a picture and into a clip, and one workflow, through HTTP, and a check of every result."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from deployments.engines.faces.embedding import Embedding
from deployments.engines.images import BgrImage
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import load_picture, picture_size
from deployments.engines.media.probe import MediaInfo
from deployments.fake_comfyui.child import FakeChild
from deployments.jobs.errors import ServiceError
from serve_app.client import ApiError, Client, JsonObject
from serve_app.doctor import find_port_trouble
from serve_app.identity import IdentityMeter, Likeness, likeness
from serve_app.progress import JobProgress
from serve_app.service_process import ServiceFailed, ServiceProcess
from serve_app.settings import Settings, url_of

SAMPLES = Path(__file__).parent / "samples"
SOURCE = SAMPLES / "astronaut.png"
TARGETS = (SAMPLES / "grace_hopper.jpg", SAMPLES / "woman_face.mp4")

FAKE_NAME = "demo-fake"  # of the backend that the demo brings along
DRAWN_SIZE = (640, 448)  # not what the workflow has by itself: a picture of this size was asked for
BACKEND_TIMEOUT_S = 30.0  # until a backend has been looked at; one that a dead replica drove is free after a lease of 15 s
POLL_S = 0.5
ROUNDING = 1  # of 255: ComfyUI computes with fractions and cuts them off
STAMPED = 0.05  # share of a picture that a fake backend may cover with the words that say so
STAND_IN = "no model: the picture is a stand-in"


class DemoFailed(Exception):
    """The demo did not do what it should; the text says what."""


@dataclass(frozen=True)
class Swap:
    """One swap and what came of it."""

    target: Path
    result: Path
    seconds: float  # from submit until the file was here


@dataclass(frozen=True)
class Measured:
    """What the target and the result of a swap look like."""

    swap: Swap
    target: MediaInfo
    result: MediaInfo
    before: Likeness  # of the target
    after: Likeness  # of the result


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


class Demo:
    """Starts a service, or uses the one that runs, and puts it to work."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._folder = settings.data_dir / "demo"
        self._url = url_of(settings.host, settings.port)

    def run(self, *, stay: bool) -> None:
        """Do all of it.

        Args:
            stay: keep a service that was started here until Ctrl-C.

        Raises:
            DemoFailed: the port is taken, a job failed, or a result is wrong.
            ServiceFailed: the service did not start or stop.
        """
        with Client(self._url) as client, self._service(client) as service:
            measured, run = self._work(client)
            self._show(measured, run, service)
            check(measured)
            if run:
                check_run(run)
            if service and stay:
                self._stay(service)

    @contextmanager
    def _service(self, client: Client) -> Iterator[ServiceProcess | None]:
        """Have a service that is ready; None stands for one that was there before, and stays."""
        if client.is_atelier():
            self._console.print(f"The service on {self._url} runs already.")
            yield None
            return
        if trouble := find_port_trouble(self._settings.host, self._settings.port):
            raise DemoFailed(trouble)
        for number in (signal.SIGTERM, signal.SIGHUP):  # a lost terminal or an impatient script must not leave the service behind
            signal.signal(number, signal.default_int_handler)
        with self._backend() as environment:
            service = ServiceProcess(self._settings.host, self._settings.port, self._folder / "serve.log", environment)
            try:
                self._wait_until_ready(service, client)
                yield service
            finally:
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # neither must a second Ctrl-C
                    signal.signal(number, signal.SIG_IGN)
                service.stop()

    @contextmanager
    def _backend(self) -> Iterator[dict[str, str]]:
        """Have a ComfyUI server for the service, a fake one where the settings name none; yield the environment that says where."""
        if self._settings.comfyui.backends or self._settings.comfyui.managed.enabled:
            yield {}
            return
        fake = FakeChild()
        try:
            try:
                fake.start()
            except OSError as error:
                raise DemoFailed(str(error)) from error
            self._console.print(f"No ComfyUI server is configured: the demo starts a fake backend ({STAND_IN}).")
            yield {"COMFYUI_URL": f"{fake.url}#name={FAKE_NAME}"}
        finally:  # also when it was interrupted while it started
            fake.stop()

    def _wait_until_ready(self, service: ServiceProcess, client: Client) -> None:
        began = time.monotonic()
        with self._console.status("") as status:
            service.wait_until_ready(client, lambda waited_s: status.update(f"The service starts: {waited_s:.0f} s"))
        self._console.print(f"The service is ready after {time.monotonic() - began:.0f} s.")

    def _work(self, client: Client) -> tuple[list[Measured], Run | None]:
        try:
            with JobProgress(self._console) as progress:
                source_id = progress.upload(client, str(SOURCE))
                swaps = [self._swap(client, progress, source_id, target) for target in TARGETS]
                run = self._run_workflow(client, progress, source_id)
            return self._measure(swaps), run
        except (ApiError, ServiceError) as error:
            raise DemoFailed(str(error)) from error

    def _swap(self, client: Client, progress: JobProgress, source_id: str, target: Path) -> Swap:
        target_id = progress.upload(client, str(target))
        began = time.monotonic()
        job = client.submit({"kind": "faceswap", "source": source_id, "target": target_id, "labels": {"made-by": "demo"}})
        job = progress.follow(client, job["id"], f"swap {SOURCE.stem} into {target.name}")
        result = self._folder / f"{SOURCE.stem}_in_{target.name}"
        progress.download(client, _output_of(job, target.name), result)
        return Swap(target, result, time.monotonic() - began)

    def _run_workflow(self, client: Client, progress: JobProgress, source_id: str) -> Run | None:
        """Run a workflow on one of the service's backends; None where it has none."""
        backends = self._wait_for_backends(client)
        usable = [backend for backend in backends if backend["healthy"] and not backend["draining"]]
        if not usable and not self._settings.comfyui.managed.enabled:  # managed servers are in no list, and start with their replica
            self._say_why_not([backend["name"] for backend in backends])
            return None
        drawn = bool(usable) and all(backend["fake"] for backend in usable)
        if drawn:
            self._console.print(f"The workflow runs on a fake backend ({STAND_IN}).")
        errand = drawing() if drawn else self._inversion(source_id)
        return self._run(client, progress, errand, fakes={backend["name"] for backend in backends if backend["fake"]})

    def _say_why_not(self, names: list[str]) -> None:
        if FAKE_NAME in names:
            raise DemoFailed("the fake backend is there and takes no jobs: see /v1/admin/backends of the service")
        reason = f"none of {', '.join(names)} takes jobs" if names else "the service has none"
        self._console.print(f"No workflow is run, for want of a ComfyUI server: {reason}. COMFYUI_URL says where one is.")

    def _inversion(self, source_id: str) -> Errand:
        """Return what every server can do: a real one may lack the models that drawing takes."""
        return Errand("invert", {"image": {"file_id": source_id}}, picture_size(SOURCE, self._settings.media), SOURCE)

    def _run(self, client: Client, progress: JobProgress, errand: Errand, fakes: set[str]) -> Run:
        began = time.monotonic()
        request = {"kind": "comfyui", "workflow": errand.workflow, "inputs": errand.inputs, "labels": {"made-by": "demo"}}
        job = progress.follow(client, client.submit(request)["id"], f"workflow {errand.workflow}")
        output, backend = _output_of(job, errand.workflow), job["attempts"][-1]["facts"]["backend"]
        result = self._folder / f"{errand.workflow}{Path(output['name']).suffix}"
        progress.download(client, output, result)
        seconds = time.monotonic() - began
        return Run(errand, backend, backend in fakes, result, load_picture(result, self._settings.media), seconds)

    def _wait_for_backends(self, client: Client) -> list[JsonObject]:
        """Return the service's backends once one of them is healthy, or after a while: the first look at them takes its time."""
        give_up_at = time.monotonic() + BACKEND_TIMEOUT_S
        while True:
            backends: list[JsonObject] = client.capabilities()["backends"]
            if not backends or any(backend["healthy"] for backend in backends) or time.monotonic() > give_up_at:
                return backends
            time.sleep(POLL_S)

    def _measure(self, swaps: list[Swap]) -> list[Measured]:
        with self._console.status("Comparing the faces"):
            meter = IdentityMeter(self._settings.home / "configs" / "models.yaml", self._settings.face_swap)
            source = meter.embeddings(SOURCE)
            return [_measure(swap, meter, source) for swap in swaps]

    def _show(self, measured: list[Measured], run: Run | None, service: ServiceProcess | None) -> None:
        self._console.print(to_table(measured))
        self._console.print("Cosine of SFace embeddings, before -> after: 1 is the same face, strangers lie below 0.36.", highlight=False)
        self._console.print("The results are made by AI: say so where you show them.", highlight=False)
        if run:
            self._console.print(to_run_table(run))
        places = Table.grid(padding=(0, 2))
        for result in [item.swap.result for item in measured] + ([run.result] if run else []):
            places.add_row("result", str(result))
        places.add_row("API", f"{self._url}/docs")
        places.add_row("workflows", f"{self._url}/v1/workflows")
        places.add_row("start page", f"{self._url}/")
        if service and (dashboard := service.dashboard()):
            places.add_row("Ray dashboard", dashboard)
            places.add_row("log", str(service.log))
        self._console.print(places, soft_wrap=True)

    def _stay(self, service: ServiceProcess) -> None:
        self._console.print("All results are right. The service runs until Ctrl-C.")
        try:
            status = service.wait()
        except KeyboardInterrupt:
            self._console.print("Stopping.")
            return
        raise ServiceFailed(f"the service ended by itself with status {status}: see {service.log}")


def _output_of(job: JsonObject, title: str) -> JsonObject:
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


def _measure(swap: Swap, meter: IdentityMeter, source: list[Embedding]) -> Measured:
    target, result = meter.embeddings(swap.target), meter.embeddings(swap.result)
    return Measured(
        swap,
        meter.probe(swap.target),
        meter.probe(swap.result),
        before=likeness(target, source, target),
        after=likeness(result, source, target),
    )


def to_table(measured: list[Measured]) -> Table:
    """Lay out identity before and after."""
    table = Table("face", "to the source", "to the target", "seconds")
    for item in measured:
        table.add_row(
            f"{SOURCE.stem} in {item.swap.target.name}",
            f"{item.before.to_source:.2f} -> {item.after.to_source:.2f}",
            f"{item.before.to_target:.2f} -> {item.after.to_target:.2f}",
            f"{item.swap.seconds:.1f}",
        )
    return table


def drawing() -> Errand:
    """Return what shows a workflow at its best: it has a sampler, whose steps can be followed."""
    width, height = DRAWN_SIZE
    return Errand("text-to-image", {"prompt": "a lighthouse at dusk", "width": width, "height": height}, DRAWN_SIZE)


def to_run_table(run: Run) -> Table:
    """Lay out what a workflow has made, and whether a model had a part in it."""
    table = Table("workflow", "backend", "picture", "seconds")
    made = f"negative of {run.errand.inverted.name}" if run.errand.inverted else "stand-in" if run.fake else "drawn"
    height, width = run.picture.shape[:2]
    table.add_row(
        run.errand.workflow, f"{run.backend} (fake)" if run.fake else run.backend, f"{width}x{height}, {made}", f"{run.seconds:.1f}"
    )
    return table


def check(measured: list[Measured]) -> None:
    """Judge the results; that their bytes are whole, the download has checked.

    Raises:
        DemoFailed: with all that is wrong.
    """
    wrong = [f"{item.swap.result.name}: {fault}" for item in measured for fault in faults(item)]
    if wrong:
        raise DemoFailed("\n".join(wrong))


def faults(item: Measured) -> Iterator[str]:
    """Yield what is wrong with one result."""
    size, wanted = ((info.width, info.height) for info in (item.result, item.target))
    if (item.result.kind, size) != (item.target.kind, wanted):
        yield f"is a {item.result.kind} of {size[0]}x{size[1]} instead of a {item.target.kind} of {wanted[0]}x{wanted[1]}"
    if abs((item.result.frames or 0) - (item.target.frames or 0)) > 1:
        yield f"has {item.result.frames} frames instead of {item.target.frames}"
    if item.target.has_audio and not item.result.has_audio:
        yield "has lost its sound"
    if item.after.to_source <= item.before.to_source:
        yield "does not look more like the source than the target did"
    if item.target.kind == "picture" and item.after.to_source <= item.after.to_target:
        yield "still looks more like the target than like the source"


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
