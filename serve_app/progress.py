"""How a job goes on, live in a terminal: a bar where there is one, a line for each change where there is none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from serve_app.client import Client, JsonObject

STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}


class JobProgress:
    """Shows one job after another; used as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
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
        path = Path(media).expanduser()
        if not path.is_file():
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
        for event in events:
            if event["type"] == "progress" and event.get("progress"):
                self._bars.update(bar, completed=event["progress"]["fraction"], note=note_of(event["progress"]))
                continue
            self._bars.update(bar, note=event["status"])
            if event["status"] == "succeeded":
                self._bars.update(bar, completed=1.0)
            if not self._console.is_terminal or event.get("error"):
                self._console.print(f"{title}: {state_of(event)}", style=STYLES.get(event["status"]), markup=False, highlight=False)


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
    """Say in short where a running job is, such as ``computing 12/50, 3 s left``."""
    parts = [str(progress["stage"])]
    if progress.get("frames"):
        parts.append(f"{progress.get('frame') or 0}/{progress['frames']}")
    if progress.get("eta_s") is not None:
        parts.append(f"{progress['eta_s']:.0f} s left")
    return ", ".join(parts)
