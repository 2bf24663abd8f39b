"""The command line: start the service, and use one over HTTP.

Ray and the engines are imported inside the commands that need them, so that the others answer at once.
Results go to standard output, everything for the eye to standard error. Exit status 1: it did not work, and a line says why.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from serve_app.client import Client, JsonObject
    from serve_app.settings import Settings

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Swap faces in pictures and videos with Atelier."
)
submit = typer.Typer(no_args_is_help=True, help="Submit a job.")

console = Console(stderr=True)
SECRETS = re.compile(r"(?P<head>://[^/@:\s]*:)[^@\s]+(?=@)|(?P<name>[?&](?:password|secret|token|key)=)[^&\s]+")  # as addresses hold them

Server = Annotated[str | None, typer.Option(help="Address of the service; default: TASK_API_URL, or HOST and PORT.", show_default=False)]
JobId = Annotated[str, typer.Argument(help="Id of a job.", show_default=False)]
Media = Annotated[str, typer.Argument(help="A file, a URL or a file id.", show_default=False)]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: HOST.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default: PORT.", show_default=False)] = None,
) -> None:
    """Serve on this machine until Ctrl-C."""
    settings = _settings(host=host, port=port)
    from deployments.jobs.errors import ServiceError
    from serve_app.doctor import find_port_trouble

    if trouble := find_port_trouble(settings.host, settings.port):
        _fail(trouble)
    from serve_app.main import run_local
    from serve_app.settings import url_of

    url = url_of(settings.host, settings.port)
    print(f"Atelier starts on {url}; Ctrl-C stops it.", flush=True)
    try:
        run_local(settings, lambda dashboard: print(addresses(url, dashboard), flush=True))
    except (ServiceError, ValueError, RuntimeError) as error:
        _fail(f"{error}\nRay's logs: /tmp/ray/session_latest/logs/serve")


app.add_typer(submit, name="submit")


@submit.command()
def faceswap(
    source: Media,
    target: Media,
    *,
    resolution: Annotated[str | None, typer.Option(help="Box that the result is scaled to fit, such as 1280x720.")] = None,
    output_format: Annotated[str | None, typer.Option("--format", help="png, jpeg, webp or mp4; default: as the target.")] = None,
    priority: Annotated[int, typer.Option(help="Higher leaves the queue first.", min=-100, max=100)] = 0,
    label: Annotated[list[str] | None, typer.Option(help="name:value, to list by; may be given several times.")] = None,
    wait: Annotated[bool, typer.Option(help="Follow the job to its end and download the result.")] = True,
    output: Annotated[Path, typer.Option(help="File or folder that the result goes to.")] = Path(),
    server: Server = None,
) -> None:
    """Put the face of SOURCE, a picture, into TARGET, a picture or a video."""
    from serve_app.progress import JobProgress

    with _connected(server) as client, JobProgress(console) as progress:
        request = {
            "kind": "faceswap",
            "source": progress.upload(client, source),
            "target": progress.upload(client, target),
            "output": {"resolution": resolution, "format": output_format},
            "priority": priority,
            "labels": dict(map(_label, label or ())),
        }
        job = client.submit(request)
        if not wait:
            print(job["id"])
            return
        job = progress.follow(client, job["id"], "faceswap")
        paths = [progress.download(client, result, _place(output, job, result)) for result in job["outputs"]]
    _report(job)
    print(*paths, sep="\n")


@app.command()
def watch(job_id: JobId, server: Server = None) -> None:
    """Follow a job to its end."""
    from serve_app.progress import JobProgress

    with _connected(server) as client, JobProgress(console) as progress:
        job = progress.follow(client, job_id, str(client.get(job_id)["kind"]))
    _report(job)


@app.command()
def get(job_id: JobId, server: Server = None) -> None:
    """Print a job as JSON."""
    with _connected(server) as client:
        print(_to_json(client.get(job_id)))


@app.command(name="list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="queued, running, succeeded, failed or cancelled.")] = None,
    kind: Annotated[str | None, typer.Option(help="Such as faceswap.")] = None,
    label: Annotated[str | None, typer.Option(help="name:value")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=200)] = 20,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    server: Server = None,
) -> None:
    """List jobs, newest first."""
    with _connected(server) as client:
        jobs = client.list_jobs(status=status, kind=kind, label=label, limit=limit)["jobs"]
    if as_json:
        print(_to_json(jobs))
        return
    for job in jobs:
        created, error = job["created_at"][:19].replace("T", " "), job["error"]["code"] if job["error"] else ""
        print(f"{job['id']}  {created}  {job['kind']:<10}  {job['status']:<9}  {error}".rstrip())


@app.command()
def cancel(job_id: JobId, server: Server = None) -> None:
    """Cancel a job: at once when it waits, soon when it runs."""
    with _connected(server) as client:
        job = client.cancel(job_id)
    print("cancelling" if job["cancel_requested"] and job["status"] == "running" else job["status"])


@app.command()
def config() -> None:
    """Print the settings as they are in effect, secrets hidden."""
    import yaml

    print(yaml.safe_dump(hide_secrets(_settings().model_dump(mode="json")), sort_keys=False, allow_unicode=True), end="")


@app.command()
def doctor() -> None:
    """Look for what is wrong with this installation."""
    from serve_app.doctor import examine

    healthy = True
    for finding in examine():
        healthy = healthy and finding.ok
        print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name:<14}{finding.text}", flush=True)
    raise typer.Exit(0 if healthy else 1)


@app.command()
def demo(
    *,
    leave: Annotated[bool, typer.Option("--exit", help="End after the work instead of serving on.")] = False,
) -> None:
    """Start the service, swap a face in a picture and in a clip, and check the results."""
    settings = _settings()
    from serve_app.demo import Demo, DemoFailed
    from serve_app.service_process import ServiceFailed

    try:
        Demo(settings, Console()).run(stay=not leave)
    except (DemoFailed, ServiceFailed) as error:
        _fail(str(error))


def addresses(server_url: str, dashboard: str | None) -> str:
    """Return the addresses of a running service, one a line."""
    lines = [f"API             {server_url}/docs", f"start page      {server_url}/"]
    return "\n".join(lines + ([f"Ray dashboard   {dashboard}"] if dashboard else []))


def hide_secrets(values: object) -> object:
    """Return settings as JSON values with every password in them replaced."""
    if isinstance(values, dict):
        return {name: hide_secrets(value) for name, value in values.items()}
    if isinstance(values, list):
        return [hide_secrets(value) for value in values]
    return SECRETS.sub(r"\g<head>\g<name>***", values) if isinstance(values, str) else values


def _settings(**overrides: str | int | None) -> Settings:
    """Read the settings; options of the command line win over them."""
    from serve_app.doctor import to_sentence
    from serve_app.settings import Settings

    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValueError as error:
        _fail(to_sentence(error))


@contextmanager
def _connected(server: str | None) -> Iterator[Client]:
    """Open a client; what it raises ends the command with one line."""
    from serve_app.client import ApiError, Client

    try:
        with Client(server or _settings().task_api_url) as client:
            yield client
    except ApiError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")


def _report(job: JsonObject) -> None:
    """End the command unless the job succeeded."""
    if job["status"] != "succeeded":
        error = job["error"]
        _fail(f"the job {job['id']} is {job['status']}" + (f", {error['code']}: {error['message']}" if error else ""))


def _place(output: Path, job: JsonObject, result: JsonObject) -> Path:
    """Return where a result goes: into a folder under a name of its own, or to the file that was asked for."""
    return output / f"{job['id'][:8]}-{Path(result['name']).name}" if output.is_dir() else output


def _label(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise typer.BadParameter(f"{text} is not of the form name:value", param_hint="--label")
    return name, value


def _to_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _fail(message: str) -> NoReturn:
    console.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    sys.exit(app())
