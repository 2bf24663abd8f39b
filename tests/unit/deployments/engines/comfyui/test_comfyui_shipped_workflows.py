"""The workflow files of the repository: each is bound with its defaults and run, on the fake backend."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from pathlib import Path

import aiohttp
import pytest
from PIL import Image

from deployments.engines.comfyui.bind import bind_inputs, binding_problems, fill_choices
from deployments.engines.comfyui.graph import check_graph
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.outputs import list_outputs
from deployments.engines.comfyui.places import find_comfy_node
from deployments.engines.comfyui.refusals import problems_of_answer
from deployments.engines.comfyui.typed_inputs import parameter_schema, typed_inputs
from deployments.engines.comfyui.validate import find_problems
from deployments.engines.comfyui.workflow_file import load_workflow_folder
from deployments.fake_comfyui.config import FakeConfig
from deployments.fake_comfyui.server import FakeComfyUI

ROOT = Path(__file__).parents[5]
WORKFLOWS, PROBLEMS = load_workflow_folder(ROOT / "workflows")
BY_NAME = {workflow.name: workflow for workflow in WORKFLOWS}
CAPTURED = ROOT / "tests" / "data" / "object_info_min.json"  # of a real server without models

KINDS = {
    "basic_generation": "image",
    "blur": "image",
    "cpu_quickly": "image",
    "invert": "image",
    "qwen_t2i_distill": "image",
    "resize": "image",
    "text-to-image": "image",
    "text2img": "image",
    "video-from-pictures": "video",
}


def required_inputs(meta):
    return {name: "picture.png" if spec.is_media else "a fox" for name, spec in meta.parameters.items() if spec.required}


def captured_info():
    raw = json.loads(CAPTURED.read_text())
    for class_name, name in (("CheckpointLoaderSimple", "ckpt_name"), ("UNETLoader", "unet_name"), ("CLIPLoader", "clip_name")):
        raw[class_name]["input"]["required"][name] = [["other.safetensors"]]
    return ObjectInfo.of(raw)


def test_every_file_loads():
    assert PROBLEMS == ()
    assert set(BY_NAME) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_every_description_fits_its_graph(name):
    workflow = BY_NAME[name]
    graph, info = check_graph(workflow.graph), captured_info()
    assert binding_problems(graph, workflow.meta, info) == ()
    assert all(info.nodes[graph[find_comfy_node(graph, text)]["class_type"]].output_node for text in workflow.meta.outputs)
    assert all(spec.description for spec in workflow.meta.parameters.values())


@pytest.mark.parametrize("name", KINDS)
def test_every_default_is_what_a_real_server_takes(name):
    workflow, info = BY_NAME[name], captured_info()
    bound = bind_inputs(check_graph(workflow.graph), workflow.meta, required_inputs(workflow.meta), info, random.Random(1))
    assert find_problems(fill_choices(bound.graph, bound.choices_open, info), info) == ()


def test_text2img_takes_what_its_clients_send():
    """The scenario's inputs and defaults are a published contract."""
    meta = BY_NAME["text2img"].meta
    sent = {"width": 512, "height": 512, "seed": -1, "steps": 20, "cfg": 7.0}
    assert typed_inputs(meta, {"prompt": "a fox"}, strict=True) == {"prompt": "a fox", "negative_prompt": "", **sent}


def test_cpu_quickly_takes_what_its_clients_send():
    meta = BY_NAME["cpu_quickly"].meta
    found = typed_inputs(meta, {"prompt": "a fox", "negative_prompt": "", "input_image": None}, strict=True)
    assert found["input_image"] == "your_image_here.png"
    assert parameter_schema(meta)["required"] == ["prompt"]


def test_distilled_qwen_takes_few_steps():
    found = typed_inputs(BY_NAME["qwen_t2i_distill"].meta, {"prompt": "a fox"})
    assert 8 <= found["steps"] <= 15
    assert found["cfg"] == 1


async def run(http, url, graph):
    prompt_id = str(uuid.uuid4())
    async with http.post(f"{url}/prompt", json={"prompt": graph, "prompt_id": prompt_id}) as response:
        assert problems_of_answer(await response.json(), graph) == ()
    while True:
        async with http.get(f"{url}/history/{prompt_id}") as response:
            entry = (await response.json()).get(prompt_id)
        if entry is not None:
            return entry
        await asyncio.sleep(0.01)


async def test_every_workflow_runs_on_the_fake_backend():
    found = {}
    async with FakeComfyUI(FakeConfig(step_s=0)) as fake, aiohttp.ClientSession() as http, asyncio.timeout(30):
        folder = fake.files.folder("input")
        for name in ("picture.png", "your_image_here.png"):
            Image.new("RGB", (48, 32), "teal").save(folder / name)
        async with http.get(f"{fake.url}/object_info") as response:
            info = ObjectInfo.of(await response.json())
        for workflow in WORKFLOWS:
            small = {
                name: 64 for name, spec in workflow.meta.parameters.items() if name in {"width", "height"} and (spec.minimum or 0) <= 64
            }
            inputs = required_inputs(workflow.meta) | small
            bound = bind_inputs(check_graph(workflow.graph), workflow.meta, inputs, info, random.Random(1))
            graph = fill_choices(bound.graph, bound.choices_open, info)
            assert find_problems(graph, info) == ()
            entry = await run(http, fake.url, graph)
            assert entry["status"]["status_str"] == "success"
            found[workflow.name] = [place.kind for place in list_outputs(entry["outputs"], graph)]
    assert found == {name: [kind] for name, kind in KINDS.items()}
