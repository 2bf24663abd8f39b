"""Workflows over HTTP: shipped, uploaded, run by their own endpoints, and described in the OpenAPI document."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import jsonschema
import pytest

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.workflow_file import read_meta
from deployments.jobs.errors import StoreUnavailable
from serve_app.api.app import create_api
from serve_app.api.config import ApiConfig
from serve_app.api.workflow_openapi import add_workflows
from serve_app.snapshot import SHIPPED_WORKFLOWS, build_snapshot

ROOT = Path(__file__).parents[4]
PROBLEM = "application/problem+json"
URL = "https://example.com/a.png"
GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "there.png"}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "mine"}},
}
MINE = {
    "title": "Mine",
    "tags": ["private"],
    "graph": GRAPH,
    "parameters": {"image": {"type": "image", "bind": "1.image", "required": True}},
}


@pytest.fixture(scope="module")
def snapshot():
    return build_snapshot(ROOT / SHIPPED_WORKFLOWS)


async def test_list_workflows_shows_what_ships_and_what_is_broken(client):
    shown = (await client.get("/v1/workflows")).json()
    (invert,) = shown["workflows"]
    assert invert == {
        "name": "invert",
        "title": "Invert",
        "description": "a negative",
        "tags": ["image"],
        "shipped": True,
        "version": None,
        "created_at": None,
        "parameters": {
            "image": {"type": "image", "required": True, "description": "what to invert"},
            "quality": {"type": "integer", "required": False, "description": ""},
        },
        "links": {
            "self": "http://atelier.test/v1/workflows/invert",
            "run": "http://atelier.test/v1/workflows/invert/run",
            "parameters": "http://atelier.test/v1/workflows/invert/parameters",
        },
    }
    assert [problem["file"] for problem in shown["problems"]] == ["broken.json"]


async def test_list_workflows_sees_a_file_that_is_dropped_in(client, workflows, catalogue):
    await client.get("/v1/workflows")
    (workflows / "another.json").write_text(json.dumps(GRAPH))
    catalogue._folder._looked_at = float("-inf")  # instead of waiting for the next look
    assert [w["name"] for w in (await client.get("/v1/workflows")).json()["workflows"]] == ["another", "invert"]
    assert (await client.get("/v1/workflows/another")).json()["graph"] == GRAPH


async def test_read_workflow_has_graph_description_and_schema(client):
    shown = (await client.get("/v1/workflows/invert")).json()
    assert (shown["format"], shown["outputs"], set(shown["graph"])) == ("api", None, {"1", "2", "3"})
    assert shown["parameters"]["quality"]["bind"] == ["3.quality"]
    schema = shown["inputs_schema"]
    assert (schema["required"], schema["properties"]["quality"]["maximum"], schema["additionalProperties"]) == (["image"], 100, False)


@pytest.mark.parametrize("name", ["nothing", "invert@1", "No Name", "x" * 90, "mine@9", "mine@x"])
@pytest.mark.parametrize("path", ["", "/parameters"])
async def test_read_workflow_that_is_not_there(client, name, path):
    await client.put("/v1/workflows/mine", json=MINE)
    response = await client.get(f"/v1/workflows/{name}{path}")
    assert (response.status_code, response.json()["code"], response.headers["content-type"]) == (404, "workflow_not_found", PROBLEM)


async def test_create_workflow_stores_versions(client):
    first = await client.post("/v1/workflows", json=MINE | {"name": "mine"})
    same = await client.post("/v1/workflows", json=MINE | {"name": "mine"})
    second = await client.post("/v1/workflows", json=MINE | {"name": "mine", "title": "Mine, better"})
    assert [r.status_code for r in (first, same, second)] == [201, 201, 201]
    assert [r.json()["version"] for r in (first, same, second)] == [1, 1, 2]
    assert first.headers["location"] == "http://atelier.test/v1/workflows/mine" == first.json()["links"]["self"]
    assert (first.json()["shipped"], first.json()["created_at"] is None) == (False, False)
    newest = (await client.get("/v1/workflows/mine")).json()
    old = (await client.get("/v1/workflows/mine", params={"version": 1})).json()
    also_old = (await client.get("/v1/workflows/mine@1")).json()
    assert (newest["title"], old["title"], also_old) == ("Mine, better", "Mine", old)
    assert [w["name"] for w in (await client.get("/v1/workflows")).json()["workflows"]] == ["invert", "mine"]


async def test_replace_workflow_says_whether_the_name_is_new(client):
    answers = [await client.put("/v1/workflows/mine", json=MINE | {"title": title}) for title in ("a", "a", "b")]
    assert [(r.status_code, r.json()["version"]) for r in answers] == [(201, 1), (200, 1), (200, 2)]


@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("PUT", "/invert"), ("DELETE", "/invert")])
async def test_shipped_workflow_cannot_be_changed(client, method, path):
    body = {"json": MINE | ({} if path else {"name": "invert"})} if method != "DELETE" else {}
    response = await client.request(method, f"/v1/workflows{path}", **body)
    assert (response.status_code, response.json()["code"]) == (409, "name_taken")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"name": "No Name"}, "/name"),
        ({"graph": "x"}, "/graph"),
        ({"grap": {}}, "/grap"),
        ({"parameters": {"image": {"type": "picture"}}}, "/parameters/image/type"),
        ({"parameters": {"image": {"type": "image", "required": True, "default": "a.png"}}}, "/parameters/image"),
        ({"graph": {"1": {"class_type": "A", "inputs": {"text": "\ud800"}}}}, "/graph"),
    ],
)
async def test_create_workflow_points_at_what_is_wrong(client, changes, pointer):
    content = json.dumps(MINE | {"name": "mine"} | changes)
    response = await client.post("/v1/workflows", content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")
    assert pointer in [error["pointer"] for error in response.json()["errors"]]


async def test_create_workflow_names_the_places_that_the_graph_does_not_have(client):
    parameters = {"image": {"type": "image", "bind": "9.image"}, "x": {"type": "string"}}
    response = await client.post("/v1/workflows", json=MINE | {"name": "mine", "parameters": parameters})
    problem = response.json()
    assert (response.status_code, problem["code"], problem["errors"]) == (422, "workflow_invalid", [])
    assert [(node["kind"], node["input"]) for node in problem["nodes"]] == [("unknown_node", "9.image"), ("unknown_parameter", "x")]


@pytest.mark.parametrize("graph", [{}, {"1": {"class_type": "A", "inputs": {"x": ["2", 0]}}}, {"some": "thing"}])
async def test_create_workflow_refuses_what_is_no_graph(client, graph):
    response = await client.post("/v1/workflows", json={"name": "mine", "graph": graph})
    assert (response.status_code, response.headers["content-type"]) == (422, PROBLEM)
    assert (await client.get("/v1/workflows/mine")).status_code == 404


async def test_delete_workflow_forgets_it_and_keeps_its_jobs(client):
    await client.put("/v1/workflows/mine", json=MINE)
    job = (await client.post("/v1/workflows/mine/run", json={"inputs": {"image": URL}})).json()
    response = await client.delete("/v1/workflows/mine")
    again = await client.delete("/v1/workflows/mine")
    assert (response.status_code, response.content, again.status_code) == (204, b"", 404)
    assert (await client.get(f"/v1/jobs/{job['id']}")).json()["spec"]["workflow"] == {"name": "mine", "version": 1}


async def test_list_parameters_shows_every_place(client):
    shown = (await client.get("/v1/workflows/invert/parameters")).json()["parameters"]
    assert [parameter["place"] for parameter in shown] == ["1.image", "3.filename_prefix", "3.quality"]
    assert (shown[0]["title"], shown[0]["media"], shown[2]["value"], shown[2]["type"]) == ("Picture", "image", 90, "integer")


async def test_list_parameters_of_the_editors_format_needs_a_backend(client, descriptions):
    ui = {"nodes": [{"id": 1, "type": "SaveImage", "inputs": [], "outputs": [], "widgets_values": ["a"], "mode": 0}], "links": []}
    await client.put("/v1/workflows/drawn", json={"graph": ui})
    assert (await client.get("/v1/workflows/drawn")).json()["format"] == "ui"
    response = await client.get("/v1/workflows/drawn/parameters")
    assert (response.status_code, response.json()["code"]) == (422, "object_info_needed")
    described = {"required": {"filename_prefix": ["STRING", {"default": "x"}]}}
    descriptions.found = ObjectInfo.of({"SaveImage": {"input": described, "output": [], "name": "SaveImage", "output_node": True}})
    shown = (await client.get("/v1/workflows/drawn/parameters")).json()["parameters"]
    assert [(parameter["place"], parameter["value"], parameter["default"]) for parameter in shown] == [("1.filename_prefix", "a", "x")]


async def test_run_workflow_submits_a_job(client, next_job):
    body = {"inputs": {"image": URL, "quality": "80"}, "overrides": {"3.filename_prefix": "x"}, "priority": 4, "labels": {"a": "b"}}
    response = await client.post("/v1/workflows/invert/run", json=body)
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"http://atelier.test/v1/jobs/{job['id']}"
    assert (job["kind"], job["pool"], job["priority"], job["labels"]) == ("comfyui", "comfyui", 4, {"a": "b"})
    assert job["spec"]["workflow"] == {"name": "invert", "version": None}
    assert job["spec"]["graph"]["3"]["inputs"] == {"images": ["2", 0], "filename_prefix": "x", "quality": 80}
    assert job["spec"]["media"]["image"]["reference"] == {"url": URL}
    assert (await next_job("comfyui")).id == job["id"]


async def test_run_workflow_is_answered_as_a_submit_is(client, store, next_job):
    posting = asyncio.create_task(
        client.post("/v1/workflows/invert/run", json={"inputs": {"image": URL}}, headers={"Prefer": "wait=5", "Idempotency-Key": "k"})
    )
    job = await next_job("comfyui")
    await store.finish(job.id, 1, (), {}, {"backend": "gpu1"})
    response = await posting
    assert (response.status_code, response.headers["preference-applied"], response.json()["status"]) == (200, "wait=5", "succeeded")
    assert response.json()["attempts"][0]["facts"] == {"backend": "gpu1"}


async def test_run_workflow_replays_a_key_although_the_workflow_has_changed_or_is_gone(client):
    sent = {"json": {"inputs": {"image": URL}}, "headers": {"Idempotency-Key": "k"}}
    await client.put("/v1/workflows/mine", json=MINE)
    first = await client.post("/v1/workflows/mine/run", **sent)
    await client.put("/v1/workflows/mine", json=MINE | {"parameters": {}})
    second = await client.post("/v1/workflows/mine/run", **sent)
    await client.delete("/v1/workflows/mine")
    third = await client.post("/v1/workflows/mine/run", **sent)
    assert {r.json()["id"] for r in (first, second, third)} == {first.json()["id"]}
    assert [r.headers.get("idempotency-replayed") for r in (first, second, third)] == [None, "true", "true"]
    assert (await client.post("/v1/workflows/mine/run", json={"inputs": {"image": URL}})).status_code == 404


async def test_run_workflow_runs_an_older_version(client):
    await client.put("/v1/workflows/mine", json=MINE)
    await client.put("/v1/workflows/mine", json=MINE | {"title": "second"})
    job = (await client.post("/v1/workflows/mine@1/run", json={"inputs": {"image": URL}})).json()
    assert job["spec"]["workflow"] == {"name": "mine", "version": 1}


@pytest.mark.parametrize(
    ("inputs", "pointers"),
    [
        ({}, ["/inputs/image"]),
        ({"image": URL, "sharpness": 1}, ["/inputs/sharpness"]),
        ({"image": URL, "a/b~": 1}, ["/inputs/a~1b~0"]),
        ({"image": 7, "quality": 0}, ["/inputs/image", "/inputs/quality"]),
        ({"image": URL, "filename_prefix": "x"}, ["/inputs/filename_prefix"]),  # in the graph, but not declared
    ],
)
async def test_run_workflow_refuses_inputs_that_its_schema_does_not_have(client, inputs, pointers):
    response = await client.post("/v1/workflows/invert/run", json={"inputs": inputs})
    problem = response.json()
    assert (response.status_code, problem["code"], response.headers["content-type"]) == (422, "workflow_invalid", PROBLEM)
    assert [error["pointer"] for error in problem["errors"]] == pointers
    assert len(problem["nodes"]) == len(pointers)
    assert (await client.get("/v1/jobs")).json()["jobs"] == []


async def test_run_workflow_tells_what_a_value_may_be(client):
    problem = (await client.post("/v1/workflows/invert/run", json={"inputs": {"image": URL, "quality": 101}})).json()
    (node,) = problem["nodes"]
    assert node == {
        "comfy_node": "",
        "title": "",
        "input": "quality",
        "kind": "value_bigger_than_max",
        "message": "quality is 101, at most 100 is allowed",
        "received": 101,
        "allowed": {"min": 1, "max": 100},
    }


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"inputs": []}, "/inputs"),
        ({"workflow": "x"}, "/workflow"),
        ({"options": {"previews": "perhaps"}}, "/options/previews"),
        ({"inputs": {"image": "\ud800"}}, "/inputs"),
        ({"overrides": {"3.quality": float("nan")}}, "/overrides"),
    ],
)
async def test_run_workflow_points_at_what_is_wrong(client, body, pointer):
    response = await client.post("/v1/workflows/invert/run", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert pointer in [error["pointer"] for error in response.json()["errors"]]


async def test_run_workflow_names_an_override_that_leads_nowhere(client):
    body = {"inputs": {"image": URL}, "overrides": {"7.steps": 3}}
    problem = (await client.post("/v1/workflows/invert/run", json=body)).json()
    assert (problem["status"], problem["errors"], problem["nodes"][0]["kind"], problem["nodes"][0]["input"]) == (
        422,
        [],
        "unknown_node",
        "7.steps",
    )


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("PUT", "/mine"), ("POST", "/invert/run")])
async def test_workflows_take_json_only(client, method, path, content_type):
    response = await client.request(method, f"/v1/workflows{path}", content="{}", headers={"Content-Type": content_type})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "workflows"),
        ("GET", "workflows/invert"),
        ("DELETE", "workflows/invert"),
        ("POST", "workflows/invert/run"),
        ("GET", "admin/backends"),
    ],
)
async def test_installation_without_workflows_says_so(service, method, path):
    app = create_api(service, ApiConfig(allowed_hosts=frozenset({"atelier.test"})))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://atelier.test") as client:
        response = await client.request(method, f"/v1/{path}", **({"json": {}} if method == "POST" else {}))
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert "no comfyui pool" in response.json()["detail"]


async def test_installation_without_workflows_describes_itself(service):
    app = create_api(service, ApiConfig(allowed_hosts=frozenset({"atelier.test"})))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://atelier.test") as client:
        document = (await client.get("/openapi.json")).json()
    assert [p for p in document["paths"] if p.endswith("/run")] == ["/v1/workflows/{name}/run"]


async def test_openapi_describes_each_workflow_as_it_is_now(client):
    before = (await client.get("/openapi.json")).json()
    await client.put("/v1/workflows/mine", json=MINE)
    after = (await client.get("/openapi.json")).json()
    await client.delete("/v1/workflows/mine")
    last = (await client.get("/openapi.json")).json()
    assert after["paths"].keys() - before["paths"].keys() == {"/v1/workflows/mine/run"}
    assert last == before
    operation = after["paths"]["/v1/workflows/mine/run"]["post"]
    assert operation["summary"] == "Run Mine"
    body = operation["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/WorkflowRun.mine"}
    assert body["example"] == {"inputs": {"image": {"url": "https://example.com/me.png"}}}
    schemas = after["components"]["schemas"]
    assert schemas["WorkflowRun.mine"]["required"] == ["inputs"]
    assert schemas["WorkflowInputs.mine"]["properties"].keys() == {"image"}
    assert {p["in"] for p in operation["parameters"]} == {"header"}


async def test_openapi_is_there_while_the_store_is_not(client, store, monkeypatch):
    async def away(*_):
        raise StoreUnavailable("away")

    monkeypatch.setattr(store, "list_workflows", away)
    response = await client.get("/openapi.json")
    assert (response.status_code, "/v1/workflows/invert/run" in response.json()["paths"]) == (200, True)


async def test_openapi_examples_are_taken_by_the_endpoints(client, workflows):
    document = (await client.get("/openapi.json")).json()
    body = document["paths"]["/v1/workflows/invert/run"]["post"]["requestBody"]["content"]["application/json"]
    assert (await client.post("/v1/workflows/invert/run", json=body["example"])).status_code == 202


def test_openapi_examples_fit_their_schemas_whatever_the_parameter(snapshot):
    kinds = ["string", "integer", "number", "boolean", "choice", "seed", "image", "mask", "audio", "video"]
    required = {f"a_{kind}": {"type": kind, "required": True} for kind in kinds}
    bounded = {"low": {"type": "integer", "minimum": 5, "required": True}, "high": {"type": "number", "maximum": -2.5, "required": True}}
    chosen = {"one": {"type": "choice", "choices": [3, "b"], "required": True}, "first": {"type": "choice", "default": "first_choice"}}
    meta = read_meta({"parameters": required | bounded | chosen | {"open": {"type": "string"}}})
    document = add_workflows(snapshot, [NamedWorkflow("all", None, {}, meta)])
    body = document["paths"]["/v1/workflows/all/run"]["post"]["requestBody"]["content"]["application/json"]
    example = body["example"]["inputs"]
    assert example.keys() == meta.parameters.keys() - {"first", "open"}
    schema = {"$ref": "#/components/schemas/WorkflowRun.all", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(body["example"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate({"inputs": example | {"unknown": 1}})


def test_openapi_names_operations_once_and_every_reference_leads_somewhere(snapshot):
    operations = [operation["operationId"] for path in snapshot["paths"].values() for operation in path.values()]
    assert sorted(operations) == sorted(set(operations))
    references = {part.split('"')[0] for part in json.dumps(snapshot).split('"$ref": "#/components/schemas/')[1:]}
    assert references - snapshot["components"]["schemas"].keys() == set()
