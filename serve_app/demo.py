"""The demo: one face into a picture and into a clip, two faces that speak, and one workflow, through HTTP; a check of every result."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deployments.engines.faces.embedding import Embedding
from deployments.engines.media.probe import MediaInfo
from deployments.fake_comfyui.child import FakeChild
from deployments.jobs.errors import ServiceError
from serve_app.client import ApiError, Client
from serve_app.doctor import find_port_trouble
from serve_app.identity import IdentityMeter, Likeness, likeness
from serve_app.progress import JobProgress
from serve_app.service_process import ServiceFailed, ServiceProcess
from serve_app.settings import Settings, url_of
from serve_app.talking_demo import Talk, TalkingDemo, check_talks, to_talk_table
from serve_app.workflow_demo import FAKE_NAME, STAND_IN, DemoFailed, Run, WorkflowDemo, check_run, output_of, to_run_table

SAMPLES = Path(__file__).parent / "samples"
SOURCE = SAMPLES / "astronaut.png"
SPEECH = SAMPLES / "librivox_speech.wav"
TALKERS = (SOURCE, SAMPLES / "woman_face.mp4")
TARGETS = (SAMPLES / "grace_hopper.jpg", SAMPLES / "woman_face.mp4")


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
            measured, talks, run = self._work(client)
            self._show(measured, talks, run, service)
            check(measured)
            check_talks(talks)
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

    def _work(self, client: Client) -> tuple[list[Measured], list[Talk], Run | None]:
        try:
            with JobProgress(self._console) as progress:
                source_id = progress.upload(client, str(SOURCE))
                swaps = [self._swap(client, progress, source_id, target) for target in TARGETS]
                talks = TalkingDemo(self._folder, self._settings.media, SPEECH).run(client, progress, TALKERS)
                run = WorkflowDemo(self._settings, self._console, SOURCE).run(client, progress, source_id)
            return self._measure(swaps), talks, run
        except (ApiError, ServiceError) as error:
            raise DemoFailed(str(error)) from error

    def _swap(self, client: Client, progress: JobProgress, source_id: str, target: Path) -> Swap:
        target_id = progress.upload(client, str(target))
        began = time.monotonic()
        job = client.submit({"kind": "faceswap", "source": source_id, "target": target_id, "labels": {"made-by": "demo"}})
        job = progress.follow(client, job["id"], f"swap {SOURCE.stem} into {target.name}")
        result = self._folder / f"{SOURCE.stem}_in_{target.name}"
        progress.download(client, output_of(job, target.name), result)
        return Swap(target, result, time.monotonic() - began)

    def _measure(self, swaps: list[Swap]) -> list[Measured]:
        with self._console.status("Comparing the faces"):
            meter = IdentityMeter(self._settings.home / "configs" / "models.yaml", self._settings.face_swap)
            source = meter.embeddings(SOURCE)
            return [_measure(swap, meter, source) for swap in swaps]

    def _show(self, measured: list[Measured], talks: list[Talk], run: Run | None, service: ServiceProcess | None) -> None:
        self._console.print(to_table(measured))
        self._console.print("Cosine of SFace embeddings, before -> after: 1 is the same face, strangers lie below 0.36.", highlight=False)
        self._console.print(to_talk_table(talks))
        self._console.print("The results are made by AI: say so where you show them.", highlight=False)
        if run:
            self._console.print(to_run_table(run))
        places = Table.grid(padding=(0, 2))
        for result in [item.swap.result for item in measured] + [talk.result for talk in talks] + ([run.result] if run else []):
            places.add_row("result", str(result))
        places.add_row("API", f"{self._url}/docs")
        places.add_row("workflows", f"{self._url}/v1/workflows")
        if run:  # a sketch is a workflow too
            places.add_row("draw", f"{self._url}/draw")
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
