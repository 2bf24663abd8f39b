"""From a request to what is stored: named, brought along or drawn, filled in, checked; and workflows by name."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace

import httpx
import pytest

from deployments.comfyui_bridge.catalogue import WorkflowCatalogue
from deployments.comfyui_bridge.planner import ComfyPlanner
from deployments.comfyui_bridge.stored_spec import StoredSpec
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.fake_comfyui.config import FakeConfig
from deployments.fake_comfyui.server import FakeComfyUI
from deployments.jobs.errors import (
    BackendNotConfigured,
    InvalidInput,
    NameTaken,
    ObjectInfoNeeded,
    UrlNotAllowed,
    WorkflowInvalid,
    WorkflowNotFound,
)
from deployments.jobs.model import BackendSpec, BackendState, FileRecord
from deployments.jobs.spec import ComfySpec
from tests.workflows import empty_image, text_to_image

TENANT = "default"
FILE_ID = "0b0f7a35-7c3e-4c67-8f0f-6a3b0f9f1c11"
PICTURE = b"\x89PNG\r\n\x1a\n picture"


@pytest.fixture(scope="module")
def info():
    async def read():
        async with FakeComfyUI(FakeConfig()) as fake, httpx.AsyncClient() as client:
            return ObjectInfo.of((await client.get(f"{fake.url}/object_info")).json())

    return asyncio.run(read())


class Descriptions:
    def __init__(self, info, *specs):
        self.found, self.specs = info, specs

    async def backends(self):
        return tuple(BackendState(spec, draining=False, owner=None, health=None) for spec in self.specs)

    async def info(self, tags=()):
        return self.found


class Intake:
    """Stores base64, refuses what a guard would, and knows some files by name."""

    def __init__(self):
        self.stored = []
        self.files = {}

    async def find_files(self, tenant, names):
        return {name: self.files[name] for name in names if name in self.files}

    async def to_stored(self, tenant, reference):
        if getattr(reference, "url", "").startswith("http://10."):
            raise UrlNotAllowed("private")
        if hasattr(reference, "base64"):
            self.stored.append(base64.b64decode(reference.base64))
            return {"file_id": "stored"}
        return reference.model_dump(mode="json", exclude_none=True)


class Shelf:
    """Uploaded workflows in memory."""

    def __init__(self):
        self.kept = {}

    async def put_workflow(self, workflow):
        versions = self.kept.setdefault((workflow.tenant, workflow.name), [])
        if not versions or versions[-1].sha256 != workflow.sha256:
            versions.append(replace(workflow, version=len(versions) + 1))
        return versions[-1]

    async def get_workflow(self, tenant, name, version=None):
        versions = self.kept.get((tenant, name), [])
        found = versions[-1:] if version is None else [w for w in versions if w.version == version]
        if not found:
            raise WorkflowNotFound(name)
        return found[0]

    async def list_workflows(self, tenant):
        return tuple(versions[-1] for (owner, _), versions in sorted(self.kept.items()) if owner == tenant)

    async def delete_workflow(self, tenant, name):
        if self.kept.pop((tenant, name), None) is None:
            raise WorkflowNotFound(name)


META = """\
title: A lighthouse
parameters:
  prompt: {type: string, default: a lighthouse, bind: 6.text}
  seed: {type: seed, default: -1, bind: 3.seed}
  checkpoint: {type: choice, default: first_choice, bind: 4.ckpt_name}
outputs: [Save]
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "workflows"
    folder.mkdir()
    (folder / "lighthouse.json").write_text(json.dumps(text_to_image()))
    (folder / "lighthouse.yaml").write_text(META)
    (folder / "broken.json").write_text("{")
    return folder


@pytest.fixture
def catalogue(folder, monkeypatch):
    monkeypatch.setattr("deployments.comfyui_bridge.workflow_folder.LOOK_S", 0.0)
    return WorkflowCatalogue(folder, Shelf())


@pytest.fixture
def intake():
    return Intake()


@pytest.fixture
def build(catalogue, intake):
    def make(info, *specs, managed_tags=None):
        specs = specs or (BackendSpec("a", "http://a:1"),)
        return ComfyPlanner(catalogue, Descriptions(info, *([] if specs == (None,) else specs)), intake, managed_tags)

    return make


async def plan(planner, **request):
    made = await planner.plan(TENANT, ComfySpec(**request))
    return made, StoredSpec.model_validate(made.spec)


async def test_a_named_workflow_is_bound_and_its_seed_drawn(build, info):
    made, spec = await plan(build(info), workflow="lighthouse", inputs={"prompt": "a harbour"})
    assert spec.workflow == {"name": "lighthouse", "version": None}
    assert spec.graph["6"]["inputs"]["text"] == "a harbour"
    assert 0 <= spec.graph["3"]["inputs"]["seed"] <= 2**53
    assert spec.seeds["3.seed"] == spec.graph["3"]["inputs"]["seed"]
    assert (spec.choices_open, spec.outputs, made.requires) == (("4.ckpt_name",), ("9",), None)


async def test_an_override_of_an_open_choice_closes_it(build, info):
    _, spec = await plan(build(info), workflow="lighthouse", overrides={"4.ckpt_name": "fake_sdxl.safetensors"})
    assert (spec.choices_open, spec.graph["4"]["inputs"]["ckpt_name"]) == ((), "fake_sdxl.safetensors")


async def test_a_value_that_no_backend_takes_is_refused_with_its_node(build, info):
    with pytest.raises(WorkflowInvalid) as caught:
        await plan(build(info), workflow=text_to_image(ckpt="nope"))
    (problem,) = caught.value.problems
    assert (problem.comfy_node, problem.input, problem.kind, problem.received) == ("4", "ckpt_name", "value_not_in_list", "nope")
    assert problem.allowed == ["fake_sd15.safetensors", "fake_sdxl.safetensors"]


async def test_without_a_description_an_api_graph_is_taken_as_it_is(build):
    _, spec = await plan(build(None), workflow=text_to_image(ckpt="nope"))
    assert spec.graph["4"]["inputs"]["ckpt_name"] == "nope"


async def test_a_drawn_workflow_needs_a_description(build, info):
    drawn = {
        "nodes": [
            {"id": 1, "type": "EmptyImage", "mode": 0, "inputs": [], "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
             "widgets_values": [64, 32, 1, 255]},
            {"id": 2, "type": "SaveImage", "mode": 0, "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "outputs": [],
             "widgets_values": ["drawn"]},
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"]],
    }  # fmt: skip
    with pytest.raises(ObjectInfoNeeded):
        await plan(build(None), workflow=drawn)
    _, spec = await plan(build(info), workflow=drawn)
    assert spec.graph["1"]["inputs"] == {"width": 64, "height": 32, "batch_size": 1, "color": 255}
    assert spec.graph["2"]["inputs"] == {"images": ["1", 0], "filename_prefix": "drawn"}


def loader(image):
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "l"}},
    }


@pytest.mark.parametrize(
    ("value", "reference"),
    [
        ("https://example.com/a.png", {"url": "https://example.com/a.png"}),
        ({"file_id": "0b0f7a35-7c3e-4c67-8f0f-6a3b0f9f1c11"}, {"file_id": "0b0f7a35-7c3e-4c67-8f0f-6a3b0f9f1c11"}),
        ("data:image/png;base64," + base64.b64encode(PICTURE).decode(), {"file_id": "stored"}),
    ],
    ids=["url", "file", "data"],
)
@pytest.mark.parametrize("way", ["graph", "override"])
@pytest.mark.parametrize("described", [True, False])
async def test_a_reference_at_a_media_place_is_fetched(build, info, intake, value, reference, way, described):
    planner = build(info if described else None)
    request = {"workflow": loader(value)} if way == "graph" else {"workflow": loader("old.png"), "overrides": {"1.image": value}}
    _, spec = await plan(planner, **request)
    (media,) = spec.media.values()
    assert (media.comfy_node, media.input, media.kind, media.reference) == ("1", "image", "image", reference)
    assert intake.stored in ([], [PICTURE])


async def test_an_override_of_its_place_gives_a_required_input(build, info, folder):
    (folder / "lighthouse.yaml").write_text(META.replace("default: a lighthouse, ", "required: true, "))
    with pytest.raises(WorkflowInvalid, match="prompt is required"):
        await plan(build(info), workflow="lighthouse")
    with pytest.raises(WorkflowInvalid, match="prompt is required"):
        await plan(build(info), workflow="lighthouse", overrides={"3.seed": 1})
    _, spec = await plan(build(info), workflow="lighthouse", overrides={"6.text": "a fox"})
    assert spec.graph["6"]["inputs"]["text"] == "a fox"


def upload(name, media_type):
    return FileRecord(FILE_ID, TENANT, "uploads/x", name, media_type, 1, "00", 0.0)


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("way", ["graph", "override"])
@pytest.mark.parametrize("value", ["mine.png", "mine.png [input]"])
async def test_a_name_at_a_media_place_means_the_tenants_file(build, info, intake, value, way, described):
    intake.files = {"mine.png": upload("mine.png", "image/png")}
    request = {"workflow": loader(value)} if way == "graph" else {"workflow": loader("old.png"), "overrides": {"1.image": value}}
    _, spec = await plan(build(info if described else None), **request)
    (media,) = spec.media.values()
    assert (media.comfy_node, media.input, media.kind, media.reference) == ("1", "image", "image", {"file_id": FILE_ID})


@pytest.mark.parametrize("described", [True, False])
async def test_a_name_that_no_file_has_is_passed_on(build, info, intake, described):
    intake.files = {"mine.png": upload("mine.png", "image/png")}
    _, spec = await plan(build(info if described else None), workflow=loader("theirs.png"))
    assert (spec.graph["1"]["inputs"]["image"], spec.media) == ("theirs.png", {})


async def test_a_file_of_another_kind_is_refused_with_its_place(build, info, intake):
    intake.files = {"voice.png": upload("voice.png", "audio/wav")}
    with pytest.raises(WorkflowInvalid, match="takes a file of kind image, not audio/wav") as refused:
        await plan(build(info), workflow=loader("voice.png"))
    assert [(problem.comfy_node, problem.input, problem.kind) for problem in refused.value.problems] == [("1", "image", "media_reference")]


async def test_a_url_in_a_text_stays_text(build, info):
    _, spec = await plan(build(info), workflow="lighthouse", inputs={"prompt": "https://example.com/a.png"})
    assert (spec.graph["6"]["inputs"]["text"], spec.media) == ("https://example.com/a.png", {})


@pytest.mark.parametrize(
    ("value", "error"),
    [("http://10.0.0.1/a.png", UrlNotAllowed), ("data:image/png,abc", InvalidInput),
     ({"url": "ftp://x"}, WorkflowInvalid)],
)  # fmt: skip
async def test_a_reference_that_cannot_be_used_is_refused(build, info, value, error):
    with pytest.raises(error):
        await plan(build(info), workflow=loader(value))


async def test_tags_become_a_requirement_and_unknown_ones_are_refused(build, info):
    planner = build(info, BackendSpec("a", "http://a:1", ("flux", "sdxl")))
    made, _ = await plan(planner, workflow=empty_image(), options={"backend_tags": ["sdxl", "flux"], "timeout_s": 60})
    assert (made.requires, made.timeout_s) == ("tags:flux+sdxl", 60)
    with pytest.raises(InvalidInput, match="flux, sdxl"):
        await plan(planner, workflow=empty_image(), options={"backend_tags": ["sd15"]})


async def test_without_a_backend_nothing_is_accepted_unless_replicas_bring_theirs(build, info):
    with pytest.raises(BackendNotConfigured, match="COMFYUI_URL"):
        await plan(build(info, None), workflow=empty_image())
    managed = build(info, None, managed_tags=frozenset({"sdxl"}))
    assert (await plan(managed, workflow=empty_image(), options={"backend_tags": ["sdxl"]}))[1].graph
    with pytest.raises(InvalidInput, match="there is sdxl"):
        await plan(managed, workflow=empty_image(), options={"backend_tags": ["flux"]})


async def test_the_folder_is_watched_and_a_broken_file_hides_nobody(catalogue, folder):
    assert [w.name for w in await catalogue.list_all(TENANT)] == ["lighthouse"]
    assert [p.file for p in await catalogue.problems()] == ["broken.json"]
    (folder / "plain.json").write_text(json.dumps(empty_image()))
    assert [w.name for w in await catalogue.list_all(TENANT)] == ["lighthouse", "plain"]
    (folder / "plain.json").unlink()
    with pytest.raises(WorkflowNotFound):
        await catalogue.find(TENANT, "plain")


async def test_uploads_have_versions_and_cannot_shadow(catalogue):
    first = await catalogue.put(TENANT, "mine", empty_image(), {"title": "One"}, None)
    again = await catalogue.put(TENANT, "mine", empty_image(), {"title": "One"}, None)
    second = await catalogue.put(TENANT, "mine", empty_image(color=3), {"title": "Two"}, None)
    assert [w.version for w in (first, again, second)] == [1, 1, 2]
    assert (await catalogue.find(TENANT, "mine")).meta.title == "Two"
    assert (await catalogue.find(TENANT, "mine@1")).meta.title == "One"
    for wrong in ("mine@9", "mine@x", "../etc", "other"):
        with pytest.raises(WorkflowNotFound):
            await catalogue.find(TENANT, wrong)
    with pytest.raises(NameTaken):
        await catalogue.put(TENANT, "lighthouse", empty_image(), {}, None)
    with pytest.raises(NameTaken):
        await catalogue.delete(TENANT, "lighthouse")
    await catalogue.delete(TENANT, "mine")
    with pytest.raises(WorkflowNotFound):
        await catalogue.find(TENANT, "mine")


@pytest.mark.parametrize(
    ("name", "graph", "meta"),
    [("a/b", empty_image(), {}), ("ok", {"1": {"inputs": {}}}, {}), ("ok", empty_image(), {"titel": "x"}),
     ("ok", empty_image(), {"parameters": {"p": {"type": "string", "bind": "99.text"}}})],
    ids=["name", "graph", "field", "place"],
)  # fmt: skip
async def test_an_upload_that_cannot_be_used_is_refused(catalogue, name, graph, meta):
    with pytest.raises(InvalidInput):
        await catalogue.put(TENANT, name, graph, meta, None)
