"""Make a picture from a description, and wait for it: what most programs want.

::

    python examples/basic_usage.py "a lighthouse at dusk" --steps 20 --output pictures

Or from a program of yours::

    from basic_usage import generate_image
    paths = generate_image("a lighthouse at dusk", negative_prompt="blurry", seed=42)

The service is the one that TASK_API_URL names, else the one on this machine. Needs httpx.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx

SERVER = os.environ.get("TASK_API_URL", "http://127.0.0.1:8000")
ENDED = {"COMPLETED", "FAILED", "CANCELLED"}


def generate_image(
    prompt: str,
    negative_prompt: str = "",
    seed: int = -1,
    steps: int = 20,
    width: int = 1024,
    height: int = 1024,
    *,
    server: str = SERVER,
    folder: Path = Path(),
) -> list[Path]:
    """Generate, download, and return where the pictures are.

    Args:
        prompt: what the picture shall show.
        negative_prompt: what it shall not show.
        seed: the same one makes the same picture; -1 draws one.
        steps: more take longer and add detail.
        width: pixels, a multiple of 8.
        height: pixels, a multiple of 8.
        server: address of the service.
        folder: where the pictures go.

    Raises:
        RuntimeError: the service refused the task, or it failed; says why.
    """
    params = {
        "Prompt.text": prompt,
        "Negative prompt.text": negative_prompt,
        "Sampler.seed": seed,
        "Sampler.steps": steps,
        "Canvas.width": width,
        "Canvas.height": height,
    }
    with httpx.Client(base_url=server, timeout=60) as client:
        task = answer(client.post("/api/workflow/submit", json={"workflow": "text-to-image.json", "params": params}))
        task = wait(client, task["task_id"])
        return [download(client, output["url"], folder / output["filename"]) for output in task["outputs"]]


def wait(client: httpx.Client, task_id: str) -> dict[str, Any]:
    """Poll a task until it has ended. ``advanced_usage.py`` listens instead."""
    while True:
        task = answer(client.get(f"/api/task/{task_id}"))
        print(f"{task['status']} {task['progress']:.0f} %", file=sys.stderr)
        if task["status"] in ENDED:
            break
        time.sleep(0.5)
    if task["status"] != "COMPLETED":
        raise RuntimeError(f"the task ended {task['status']}: {task['error'] or 'somebody cancelled it'}")
    return task


def download(client: httpx.Client, url: str, path: Path) -> Path:
    """Save a result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with client.stream("GET", url) as response, path.open("wb") as file:
        response.raise_for_status()
        for chunk in response.iter_bytes():
            file.write(chunk)
    return path


def answer(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON of a reply; an error says what to do in its ``detail``."""
    if response.is_error:
        raise RuntimeError(f"{response.status_code}: {response.json()['detail']}")
    found: dict[str, Any] = response.json()
    return found


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt")
    parser.add_argument("--negative-prompt", default="")
    parser.add_argument("--seed", type=int, default=-1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--output", type=Path, default=Path())
    given = parser.parse_args()
    size = {"width": given.width, "height": given.height}
    try:
        paths = generate_image(given.prompt, given.negative_prompt, given.seed, given.steps, **size, folder=given.output)
    except (RuntimeError, httpx.HTTPError) as error:
        print(f"no picture: {error}", file=sys.stderr)
        return 1
    print("\n".join(map(str, paths)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
