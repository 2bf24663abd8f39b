"""More of the service: a picture of yours as an input, single inputs of single nodes, progress as it happens, an interrupt.

::

    python examples/advanced_usage.py portrait.png

It uploads the picture, blurs it by a graph of its own, listens on the WebSocket instead of polling, starts a long task and interrupts
it, and shows the newest of the history. Needs httpx and websockets.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

SERVER = os.environ.get("TASK_API_URL", "http://127.0.0.1:8000")
ENDED = {"COMPLETED", "FAILED", "CANCELLED"}

# A graph in ComfyUI's API format ("Export (API)" in its menu).
BLUR = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 1, "sigma": 1.0}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "blurred"}},
}


def run(picture: Path, output: Path) -> None:
    """Show it all."""
    with httpx.Client(base_url=SERVER, timeout=60) as client, connect(f"{SERVER.replace('http', 'ws', 1)}/ws") as socket:
        # 1. A file that workflows may load by its name, whichever ComfyUI server runs them.
        stored = answer(client.post("/api/upload/image", files={"image": (picture.name, picture.read_bytes())}))
        print(f"uploaded as {stored['name']}")

        # 2. The parameters of a workflow, each "<node id>.<input name>"; those of a saved one are at GET /api/workflow/{filename}.
        params = {"1.image": stored["name"], "2.blur_radius": 9, "2.sigma": 4.0}
        task_id = answer(client.post("/api/workflow/submit", json={"workflow": BLUR, "params": params, "timeout": 120}))["task_id"]

        # 3. The WebSocket tells of every task; the last message of each has its outputs.
        update = listen(socket, task_id, ENDED)
        if update["status"] != "COMPLETED":
            raise RuntimeError(update["error"])
        for result in update["outputs"]:
            path = output / result["filename"]
            path.write_bytes(client.get(result["url"]).content)
            print(f"result {path}")

        # 4. What takes too long is interrupted.
        slow = {"workflow": "text-to-image", "params": {"Prompt.text": "something slow", "Sampler.steps": 150}}
        slow_id = answer(client.post("/api/workflow/submit", json=slow))["task_id"]
        listen(socket, slow_id, {"PROCESSING"})
        answer(client.post(f"/api/interrupt/{slow_id}"))
        print(f"interrupted: {listen(socket, slow_id, ENDED)['status']}")

        # 5. What there was.
        for task in answer(client.get("/api/history", params={"limit": 2}))["history"]:
            print(f"history {task['task_id']} {task['status']}")


def listen(socket: ClientConnection, task_id: str, states: set[str]) -> dict[str, Any]:
    """Return the first message that says that a task is in one of these states."""
    for text in socket:
        update: dict[str, Any] = json.loads(text)
        if update["type"] == "task_update" and update["task_id"] == task_id:
            print(f"  {update['status']} {update['progress']:.0f} %", file=sys.stderr)
            if update["status"] in states:
                return update
    raise RuntimeError("the service closed the connection: connect again with /ws?after=<event_id of the last message>")


def answer(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON of a reply; an error says what to do in its ``detail``."""
    if response.is_error:
        raise RuntimeError(f"{response.status_code}: {response.json()['detail']}")
    found: dict[str, Any] = response.json()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--output", type=Path, default=Path())
    given = parser.parse_args()
    run(given.picture, given.output)
