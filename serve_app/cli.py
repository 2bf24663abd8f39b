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
    from serve_app.client import ApiError, Client, JsonObject
    from serve_app.progress import JobProgress
    from serve_app.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Swap faces in pictures and videos, make faces speak, and run ComfyUI workflows, with Atelier.",
)
submit = typer.Typer(no_args_is_help=True, help="Submit a job.")

console = Console(stderr=True)
SECRETS = re.compile(r"(?P<head>://[^/@:\s]*:)[^@\s]+(?=@)|(?P<name>[?&](?:password|secret|token|key)=)[^&\s]+")  # as addresses hold them

Server = Annotated[str | None, typer.Option(help="Address of the service; default: TASK_API_URL, or HOST and PORT.", show_default=False)]
JobId = Annotated[str, typer.Argument(help="Id of a job.", show_default=False)]
Media = Annotated[str, typer.Argument(help="A file, a URL or a file id.", show_default=False)]
Priority = Annotated[int, typer.Option(help="Higher leaves the queue first.", min=-100, max=100)]
Labels = Annotated[list[str] | None, typer.Option("--label", help="name:value, to list by; may be given several times.")]
Wait = Annotated[bool, typer.Option(help="Follow the job to its end and download the result.")]
Output = Annotated[Path, typer.Option(help="File or folder that the result goes to.")]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: HOST.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default: PORT.", show_default=False)] = None,
    comfyui_server: Annotated[
        str | None, typer.Option(help="ComfyUI servers, host:port or URL, comma-separated; default: COMFYUI_URL.", show_default=False)
    ] = None,
) -> None:
    """Serve on this machine until Ctrl-C."""
    settings = _settings(host=host, port=port, **_comfyui(comfyui_server))
    from deployments.jobs.errors import ServiceError
    from serve_app.doctor import find_port_trouble

    if trouble := find_port_trouble(settings.host, settings.port):
        _fail(trouble)
    from serve_app.main import run_local
    from serve_app.settings import export_keys, url_of

    export_keys(settings)
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
    priority: Priority = 0,
    label: Labels = None,
    wait: Wait = True,
    output: Output = Path(),
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
        _run(client, progress, request, "faceswap", output if wait else None)


@submit.command()
def face2face(
    audio: Media,
    video: Media,
    *,
    resolution: Annotated[str | None, typer.Option(help="Box that the result is scaled to fit, such as 1280x720.")] = None,
    engine: Annotated[str, typer.Option(help="auto, mesh, wav2lip or duix.")] = "auto",
    enhance: Annotated[bool, typer.Option(help="Sharpen the face by super-resolution; engine duix alone.")] = False,
    fps: Annotated[float | None, typer.Option(help="Frames a second; default: the clip's, 25 for a still.", min=1, max=60)] = None,
    priority: Priority = 0,
    label: Labels = None,
    wait: Wait = True,
    output: Output = Path(),
    server: Server = None,
) -> None:
    """Have the face of VIDEO, a clip or a picture, speak AUDIO, which may be a video's sound."""
    from serve_app.progress import JobProgress

    with _connected(server) as client, JobProgress(console) as progress:
        request = {
            "kind": "face2face",
            "audio": progress.upload(client, audio),
            "video": progress.upload(client, video),
            "engine": engine,
            "options": {"resolution": resolution, "fps": fps, "enhance": enhance},
            "priority": priority,
            "labels": dict(map(_label, label or ())),
        }
        _run(client, progress, request, "face2face", output if wait else None)


@submit.command()
def workflow(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_FILE",
            help="One of `atelier workflows`, or a .json, .png or .webp file with a workflow in it.",
            show_default=False,
        ),
    ],
    *,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="name=value. Where media are taken: a file, which is uploaded, a URL or a file id.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="<node id or title>.<input>=value; =@file uploads a file. As --input, given often.")
    ] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Tag that the ComfyUI server must have.")] = None,
    priority: Priority = 0,
    label: Labels = None,
    wait: Wait = True,
    output: Output = Path(),
    server: Server = None,
) -> None:
    """Run a ComfyUI workflow: one that the service knows, or one from a file."""
    from serve_app.progress import JobProgress
    from serve_app.workflow_request import WorkflowRequest, to_pairs

    given, places = to_pairs(inputs, "--input"), to_pairs(overrides, "--set")
    with _connected(server) as client, JobProgress(console) as progress:
        request = WorkflowRequest(client, progress).build(name, given, places) | {
            "options": {"backend_tags": tags or []},
            "priority": priority,
            "labels": dict(map(_label, label or ())),
        }
        _run(client, progress, request, Path(name).name, output if wait else None)


@app.command()
def workflows(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    server: Server = None,
) -> None:
    """List the ComfyUI workflows: name, title, inputs; those in brackets may be left out."""
    from serve_app.progress import printable

    with _connected(server) as client:
        found = client.workflows()
    for problem in found["problems"]:
        console.print(f"{problem['file']}: {problem['reason']}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print(_to_json(found["workflows"]))
        return
    for item in found["workflows"]:
        taken = (f"{name}={spec['type']}" if spec["required"] else f"[{name}={spec['type']}]" for name, spec in item["parameters"].items())
        print(printable(f"{item['name']:<20}  {item['title']:<24}  {' '.join(taken)}").rstrip())


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
    """Start the service, swap a face, have two faces speak, run a workflow, and check the results."""
    settings = _settings()
    from serve_app.demo import Demo
    from serve_app.service_process import ServiceFailed
    from serve_app.workflow_demo import DemoFailed

    try:
        Demo(settings, Console()).run(stay=not leave)
    except (DemoFailed, ServiceFailed) as error:
        _fail(str(error))


@app.command(name="fake-comfyui")
def fake_comfyui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free one.", min=0, max=65535)] = 8188,
    base_dir: Annotated[
        Path | None, typer.Option(help="Holds input, output and temp; default: a folder that is deleted at the end.")
    ] = None,
    step_s: Annotated[float, typer.Option(help="Seconds that a sampler takes for one step.", min=0)] = 0.05,
    hazard: Annotated[
        list[str] | None, typer.Option(help="A fault to show, such as late_history_s=0.2; may be given several times.")
    ] = None,
) -> None:
    """Run a fake ComfyUI for tests and demonstrations until Ctrl-C. It is never a default: a backend has to be named."""
    import asyncio

    from deployments.fake_comfyui.config import FakeConfig
    from deployments.fake_comfyui.process import parse_hazards, serve_fake

    try:
        config = FakeConfig(host=host, port=port, base_dir=base_dir, step_s=step_s, hazards=parse_hazards(hazard or ()))
        asyncio.run(serve_fake(config))
    except ValueError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{host}:{port}: {error.strerror}")


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


def _comfyui(server: str | None) -> dict[str, str]:
    """Return the settings that name the servers which were asked for, and no others: the environment may have names of older services."""
    others = ("comfyui_comfyui_server", "comfyui_host", "comfyui_port", "comfyui_server")
    return {} if server is None else {"comfyui_url": server, **dict.fromkeys(others, "")}


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
    from deployments.jobs.errors import ServiceError
    from serve_app.client import ApiError, Client

    try:
        with Client(server or _settings().task_api_url) as client:
            yield client
    except ApiError as error:
        _fail(_explain(error))
    except ServiceError as error:  # of a file that was read here
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")
    except UnicodeEncodeError:
        _fail("the arguments hold what is not UTF-8")


def _explain(error: ApiError) -> str:
    """Say what was refused and, of a workflow, a line for each input of a node that is wrong."""
    return "\n".join([str(error), *map(_node_line, error.nodes)])


def _node_line(problem: JsonObject) -> str:
    from serve_app.progress import printable

    comfy_node, title, name = (problem.get(key) or "" for key in ("comfy_node", "title", "input"))
    place = ", ".join(filter(None, [f"{title} ({comfy_node})" if title and comfy_node else comfy_node, name]))
    allowed = problem.get("allowed")
    choices = f" (there is: {', '.join(map(str, allowed))})" if isinstance(allowed, list) and allowed else ""
    return printable(f"  {place or 'workflow'}: {problem.get('message', '')}{choices}")


def _run(client: Client, progress: JobProgress, request: JsonObject, title: str, output: Path | None) -> None:
    """Submit a job; print its id when there is no ``output``, else follow it, and print where its results were put."""
    job = client.submit(request)
    if output is None:
        print(job["id"])
        return
    job = progress.follow(client, job["id"], title)
    for path in _download(client, progress, job, output):
        print(path)
    _report(job)


def _download(client: Client, progress: JobProgress, job: JsonObject, output: Path) -> Iterator[Path]:
    """Fetch what a job has made: a job that failed may have results too, and a preview is none unless there is nothing else."""
    results = [result for result in job["outputs"] if not result.get("temporary")] or job["outputs"]
    if len(results) > 1:
        if output.is_file():
            _fail(f"{output} is a file, and the job {job['id']} has {len(results)} results: they need a folder")
        output.mkdir(parents=True, exist_ok=True)
    for result in results:
        yield progress.download(client, result, _place(output, job, result))


def _report(job: JsonObject) -> None:
    """End the command unless the job succeeded."""
    if job["status"] == "succeeded":
        return
    from serve_app.progress import printable

    error = job["error"] or {}
    reason = f", {error['code']}: {printable(error['message'])}" if error else ""
    nodes = (error.get("details") or {}).get("nodes", ())
    _fail("\n".join([f"the job {job['id']} is {job['status']}{reason}", *map(_node_line, nodes)]))


def _place(output: Path, job: JsonObject, result: JsonObject) -> Path:
    """Return where a result goes: into a folder under a name of its own, or to the file that was asked for."""
    name = Path(result["name"]).name
    return output / (name if name.startswith(job["id"]) else f"{job['id'][:8]}-{name}") if output.is_dir() else output


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
