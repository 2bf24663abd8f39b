"""Sessions that draw fifteen sketches a second, against what the same picture costs when it is sent straight to the same backend.

    python -m bench.drawing [--seconds 20] [--sessions 8] [--minutes 0]

Two fake backends take a quarter of a second for a picture. First one picture after another goes straight to one of them: d, the job time.
Then one session draws without a pause. A sketch counts as shown with the first picture of it or of a newer one; whoever draws all the
time waits between d and 2 d for it, as a sketch that comes just after another has begun waits for two. So the limit is 2 d + 50 ms at the
95th percentile. Then several sessions share the backends. Last, with ``--minutes``, one session draws for that long while the memory of
the processes and the rows of the database are looked at.

A sketch was computed in vain if a newer one of its session had been accepted before its job began: that must be none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import random
import resource
import statistics
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw
from websockets.asyncio.client import ClientConnection, connect

from bench.support.local_ray import data_folder
from bench.support.service import running_service
from deployments.fake_comfyui.child import FakeChild

STYLE = Path(__file__).parent.parent / "workflows" / "styles" / "realistic.json"
STEPS = 4
STEP_S = 0.05
RATE = 15.0  # sketches a second
MARGIN_S = 0.05
SIDE_PX = 512
DIRECT_TURNS = 20
SETTLE_S = 3.0  # after the last sketch until nothing more is expected
BOXES = ("JobStoreActor", "ServeReplica:atelier:Ingress", "ServeReplica:atelier:ComfyUI", "ServeReplica:atelier:Uploader")
CHECKPOINT = "CheckpointLoaderSimple"


@dataclass(slots=True)
class Drawn:
    """What one session has seen."""

    sent: dict[int, float] = field(default_factory=dict)  # by number
    accepted: dict[int, float] = field(default_factory=dict)  # wall clock
    waits_s: list[float] = field(default_factory=list)
    previews_s: list[float] = field(default_factory=list)
    completed: list[tuple[int, str]] = field(default_factory=list)  # (number, job id)
    errors: list[str] = field(default_factory=list)
    skipped: int = 0
    seen_preview: int = 0


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each session draws")
    parser.add_argument("--sessions", type=int, default=8, help="that draw at once in the second part")
    parser.add_argument("--minutes", type=float, default=0.0, help="of the third part")
    options = parser.parse_args()
    with data_folder() as folder:
        asyncio.run(measure(folder, options.seconds, options.sessions, options.minutes))


async def measure(folder: Path, seconds: float, sessions: int, minutes: float) -> None:
    """Measure all parts and print them."""
    sketches = draw_sketches(300)
    backend = ["--step-s", str(STEP_S)]
    with FakeChild(backend) as one, FakeChild(backend) as two:
        servers = ",".join(f"{fake.url}#name=b{n}&in_flight=1" for n, fake in enumerate((one, two)))
        with running_service(folder, {"COMFYUI_URL": servers, "ATELIER_DRAWING__ROWS_S": "30"}) as url:
            await draw(url, sketches, 2.0)  # what starts late has started
            job_s = await time_direct(one.url, sketches)
            print(f"straight to a backend: {job_s * 1e3:.0f} ms a picture")
            show_one(await draw(url, sketches, seconds), job_s)
            drawn = await asyncio.gather(*(draw(url, sketches, seconds) for _ in range(sessions)))
            await show_several(url, list(drawn), seconds, job_s)
            if minutes:
                await watch(url, sketches, minutes)
            figures = (await get(url, "/v1/stats"))["drawing"]
            print("as the service saw it:", json.dumps({name: round(value, 3) for name, value in figures.items() if value is not None}))


def draw_sketches(count: int) -> list[bytes]:
    """Return the states of a drawing, a stroke more in each, as PNG."""
    chance, at = random.Random(1), (SIDE_PX // 2, SIDE_PX // 2)
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), "white")
    pen, states = ImageDraw.Draw(image), []
    for _ in range(count):
        to = tuple(min(SIDE_PX - 1, max(0, place + chance.randint(-70, 70))) for place in at)
        pen.line([at, to], fill=(chance.randrange(128),) * 3, width=5)
        at = (to[0], to[1])
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        states.append(buffer.getvalue())
    return states


async def time_direct(server: str, sketches: list[bytes]) -> float:
    """Return the median time of a picture that a script gets from a server that it knows and trusts, previews included."""
    graph: dict[str, Any] = json.loads(STYLE.read_text("utf-8"))
    graph["7"]["inputs"]["steps"] = STEPS
    client_id, times = uuid.uuid4().hex, []
    async with httpx.AsyncClient(base_url=server) as http, connect(f"{server.replace('http', 'ws')}/ws?clientId={client_id}") as socket:
        info = (await http.get(f"/object_info/{CHECKPOINT}")).json()
        graph["3"]["inputs"]["ckpt_name"] = info[CHECKPOINT]["input"]["required"]["ckpt_name"][0][0]
        for n in range(DIRECT_TURNS):
            began = time.perf_counter()
            sent = await http.post("/upload/image", files={"image": (f"{uuid.uuid4().hex}.png", sketches[n])})
            graph["1"]["inputs"]["image"] = sent.json()["name"]
            graph["9"]["inputs"]["filename_prefix"] = uuid.uuid4().hex
            body = {"prompt": graph, "client_id": client_id, "extra_data": {"preview_method": "auto"}}
            prompt_id = (await http.post("/prompt", json=body)).json()["prompt_id"]
            await until_done(socket, prompt_id)
            outputs = (await http.get(f"/history/{prompt_id}")).json()[prompt_id]["outputs"]["9"]["images"][0]
            (await http.get("/view", params=outputs)).raise_for_status()
            times.append(time.perf_counter() - began)
    return statistics.median(times)


async def until_done(socket: ClientConnection, prompt_id: str) -> None:
    """Read events until a prompt has ended."""
    while True:
        message = await socket.recv()
        if isinstance(message, str):
            event = json.loads(message)
            if event["type"] == "execution_success" and event["data"]["prompt_id"] == prompt_id:
                return


async def draw(url: str, sketches: list[bytes], seconds: float) -> Drawn:
    """Draw in a session of its own."""
    drawn, began = Drawn(), time.perf_counter()
    async with connect(f"{url.replace('http', 'ws')}/api/ws/{uuid.uuid4().hex}", max_size=2**24) as socket:
        await socket.send(json.dumps({"type": "hello", "binary": True, "previews": True}))
        await socket.recv()

        async def send() -> None:
            n = 0
            while time.perf_counter() - began < seconds:
                n += 1
                head = json.dumps({"style": "realistic", "settings": {"steps": STEPS}, "seq": n}).encode()
                drawn.sent[n] = time.perf_counter()
                await socket.send(len(head).to_bytes(4, "big") + head + sketches[n % len(sketches)])
                await asyncio.sleep(max(0.0, began + n / RATE - time.perf_counter()))

        sending = asyncio.create_task(send())
        while not (sending.done() and time.perf_counter() > began + seconds + SETTLE_S):
            try:
                async with asyncio.timeout(SETTLE_S):
                    note(drawn, await socket.recv())
            except TimeoutError:
                continue
        await sending
    return drawn


def note(drawn: Drawn, message: str | bytes) -> None:
    """Take note of what a session hears."""
    now = time.perf_counter()
    header = json.loads(message if isinstance(message, str) else message[4 : 4 + int.from_bytes(message[:4], "big")])
    seq = header.get("seq")
    match header["status"]:
        case "accepted":
            drawn.accepted[seq] = time.time()
        case "skipped":
            drawn.skipped += 1
        case "preview" if seq > drawn.seen_preview:
            drawn.previews_s += [now - drawn.sent[n] for n in range(drawn.seen_preview + 1, seq + 1)]
            drawn.seen_preview = seq
        case "completed":
            last = drawn.completed[-1][0] if drawn.completed else 0
            drawn.waits_s += [now - drawn.sent[n] for n in range(last + 1, seq + 1)]
            drawn.completed.append((seq, header["job_id"]))
        case "error":
            drawn.errors.append(header["message"])


def show_one(drawn: Drawn, job_s: float) -> None:
    """Print the figures of one session by itself."""
    limit_s = 2 * job_s + MARGIN_S
    (p50, p95), (preview_p50, preview_p95) = percentiles(drawn.waits_s), percentiles(drawn.previews_s)
    print(f"one session: {len(drawn.sent)} sketches, {len(drawn.completed)} pictures, {drawn.skipped} skipped; errors {drawn.errors[:3]}")
    print(f"  stroke to preview p50 {preview_p50 * 1e3:.0f} ms, p95 {preview_p95 * 1e3:.0f} ms")
    print(
        f"  stroke to result  p50 {p50 * 1e3:.0f} ms, p95 {p95 * 1e3:.0f} ms: {p95 / limit_s:.2f} of 2 d + 50 ms = {limit_s * 1e3:.0f} ms"
    )


async def show_several(url: str, drawn: list[Drawn], seconds: float, job_s: float) -> None:
    """Print the figures of several sessions."""
    counts = [len(one.completed) for one in drawn]
    mean = statistics.mean(counts)
    uneven = max(abs(count - mean) for count in counts) / mean
    _, p95 = percentiles([wait for one in drawn for wait in one.waits_s])
    in_vain = sum([await count_in_vain(url, one) for one in drawn])
    busy = sum(counts) * job_s / (2 * seconds)
    print(f"{len(drawn)} sessions on two backends: pictures {counts}, the furthest {uneven:.0%} from the mean (limit 10 %)")
    print(f"  stroke to result p95 {p95 * 1e3:.0f} ms; backends busy {busy:.0%} of the time; computed though a newer one waited: {in_vain}")
    print(f"  errors {[one.errors[0] for one in drawn if one.errors]}")


async def count_in_vain(url: str, drawn: Drawn) -> int:
    """Count the pictures whose job began after a newer sketch had been accepted."""
    found = 0
    for seq, job_id in drawn.completed[-20:]:  # older rows may have been forgotten
        job = await get(url, f"/v1/jobs/{job_id}")
        began = datetime.fromisoformat(job["started_at"]).timestamp()
        newer = [at for number, at in drawn.accepted.items() if number > seq]
        found += any(at < began for at in newer)
    return found


async def watch(url: str, sketches: list[bytes], minutes: float) -> None:
    """Print memory and rows while one session draws."""
    drawing = asyncio.create_task(draw(url, sketches, minutes * 60))
    began = time.perf_counter()
    while not drawing.done():
        rows = sum((await get(url, "/v1/stats"))["by_kind"].get("sketch", {}).values())
        memory = " ".join(f"{name.rpartition(':')[2]} {mib:.0f}" for name, mib in memory_mib().items())
        print(f"after {time.perf_counter() - began:4.0f} s: {rows} rows of sketches; MiB: {memory}", flush=True)
        await asyncio.wait({drawing}, timeout=60)


def memory_mib() -> dict[str, float]:
    """Return the resident memory that is a box's own."""
    found = dict.fromkeys(BOXES, 0.0)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            title = (folder / "cmdline").read_bytes().decode(errors="replace")
            _, resident, shared, *_ = map(int, (folder / "statm").read_text().split())
            for box in BOXES:
                if title.startswith(f"ray::{box}"):
                    found[box] += (resident - shared) * resource.getpagesize() / 2**20
    return found


async def get(url: str, path: str) -> dict[str, Any]:
    """Read JSON."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        answer: dict[str, Any] = (await http.get(path)).raise_for_status().json()
        return answer


def percentiles(values: list[float]) -> tuple[float, float]:
    """Return median and 95th percentile."""
    cuts = statistics.quantiles(values, n=20, method="inclusive") if len(values) > 1 else [float("nan")] * 19
    return cuts[9], cuts[18]


if __name__ == "__main__":
    main()
