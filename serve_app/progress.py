"""How a job goes on, live in a terminal: a bar where there is one, a line for each change where there is none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from serve_app.client import Client, JsonObject, local_file

STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}


class JobProgress:
    """Shows one job after another; used as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),  # names of files and nodes may hold square brackets
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def upload(self, client: Client, media: str) -> str:
        """Upload a local file with a bar; other references pass as they are (see ``Client.to_reference``)."""
        path = local_file(media)
        if path is None:
            return client.to_reference(media)
        bar = self._bars.add_task(f"upload {path.name}", total=path.stat().st_size, note="")
        return client.to_reference(media, lambda size: self._bars.advance(bar, size))

    def follow(self, client: Client, job_id: str, title: str) -> JsonObject:
        """Show a job until it has ended and return it as it then is."""
        bar = self._bars.add_task(title, total=1.0, note="queued")
        self._show(bar, title, client.events(job_id))
        return client.get(job_id)

    def download(self, client: Client, output: JsonObject, path: Path) -> Path:
        """Download one output of a job with a bar."""
        bar = self._bars.add_task(f"download {path.name}", total=output["size_bytes"], note="")
        return client.download(output, path, lambda size: self._bars.advance(bar, size))

    def _show(self, bar: TaskID, title: str, events: Iterable[JsonObject]) -> None:
        comfy_node = None
        for event in events:
            if event["type"] == "progress" and event.get("progress"):
                self._bars.update(bar, completed=event["progress"]["fraction"], note=note_of(event["progress"]))
                before, comfy_node = comfy_node, event["progress"].get("comfy_node") or comfy_node
                if comfy_node != before and not self._console.is_terminal:
                    self._say(f"{title}: {note_of(event['progress'])}")
                continue
            self._bars.update(bar, note=event["status"])
            if event["status"] == "succeeded":
                self._bars.update(bar, completed=1.0)
            if not self._console.is_terminal or event.get("error"):
                self._say(f"{title}: {state_of(event)}", STYLES.get(event["status"]))

    def _say(self, line: str, style: str | None = None) -> None:
        self._console.print(printable(line), style=style, markup=False, highlight=False)


def state_of(event: JsonObject) -> str:
    """Say what a state event means, such as ``running, attempt 2`` or ``queued again after worker_lost: …``."""
    error = event.get("error")
    if event["status"] == "running":
        return f"running, attempt {event['attempt']}"
    if not error:
        return str(event["status"])
    again = " again after" if event["status"] == "queued" else ","
    return f"{event['status']}{again} {error['code']}: {error['message']}"


def note_of(progress: dict[str, Any]) -> str:
    """Say in short where a running job is, such as ``computing 12/50, 3 s left`` or, of a workflow, ``Sampler 12/20``."""
    title = progress.get("comfy_node_title")
    done, count = ("step", "steps") if title else ("frame", "frames")
    where = str(title or progress["stage"])
    if progress.get(count):
        where += f" {progress.get(done) or 0}/{progress[count]}"
    if progress.get("eta_s") is not None:
        where += f", {progress['eta_s']:.0f} s left"
    return printable(where)


def printable(text: str) -> str:
    """Return a text of somebody else in one line that a terminal does not take for commands."""
    return "".join(character if character.isprintable() else " " for character in text)
