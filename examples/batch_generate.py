"""Make many pictures: submit all at once, let the service queue them, and take each result as it comes.

::

    python examples/batch_generate.py prompts.txt --seeds 2 --output pictures

The file has one description a line. Nothing here limits how many tasks run: the service does, over as many ComfyUI servers as it has.
A task that fails is named, and the others go on. Needs httpx.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import httpx

SERVER = os.environ.get("TASK_API_URL", "http://127.0.0.1:8000")
ENDED = {"COMPLETED", "FAILED", "CANCELLED"}


async def generate(prompts: list[str], seeds: int, folder: Path, size: int, steps: int) -> int:
    """Generate every prompt with every seed; return how many tasks failed."""
    async with httpx.AsyncClient(base_url=SERVER, timeout=60) as client:
        wanted = [(prompt, seed) for prompt in prompts for seed in range(seeds)]
        tasks = await asyncio.gather(*(submit(client, prompt, seed, size, steps) for prompt, seed in wanted))
        print(f"{len(tasks)} tasks wait", file=sys.stderr)
        failed = 0
        for done in asyncio.as_completed([collect(client, task_id, folder) for task_id in tasks]):
            text, ok = await done
            print(text)
            failed += not ok
        return failed


async def submit(client: httpx.AsyncClient, prompt: str, seed: int, size: int, steps: int) -> str:
    """Submit one picture and return the id of its task."""
    inputs = {"prompt": prompt, "seed": seed, "width": size, "height": size, "steps": steps}
    response = await client.post("/api/tasks/create", json={"workflow": "text-to-image", "inputs": inputs})
    if response.is_error:
        raise SystemExit(f"{prompt!r} was refused: {response.json()['detail']}")
    task_id: str = response.json()["task_id"]
    return task_id


async def collect(client: httpx.AsyncClient, task_id: str, folder: Path) -> tuple[str, bool]:
    """Wait for a task and save its pictures; return what to print, and whether it went well."""
    while True:
        task = (await client.get(f"/api/tasks/{task_id}")).json()
        if task["status"] in ENDED:
            break
        await asyncio.sleep(1)
    if task["status"] != "COMPLETED":
        return f"{task_id} {task['status']}: {task['error']}", False
    folder.mkdir(parents=True, exist_ok=True)
    for output in task["outputs"]:
        (folder / output["filename"]).write_bytes((await client.get(output["url"])).content)
    return "\n".join(str(folder / output["filename"]) for output in task["outputs"]), True


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path, help="file with a description a line")
    parser.add_argument("--seeds", type=int, default=1, help="pictures of each")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("pictures"))
    given = parser.parse_args()
    prompts = [line.strip() for line in given.prompts.read_text("utf-8").splitlines() if line.strip()]
    return 1 if asyncio.run(generate(prompts, given.seeds, given.output, given.size, given.steps)) else 0


if __name__ == "__main__":
    sys.exit(main())
