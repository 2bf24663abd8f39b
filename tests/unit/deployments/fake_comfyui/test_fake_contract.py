"""What holds of the fake and of a real ComfyUI: run against both where ATELIER_REAL_COMFYUI names one."""

from __future__ import annotations

import struct
import uuid

import pytest

FIRST_RUN = [
    ("status", None),
    ("status", None),
    ("execution_start", None),
    ("execution_cached", None),
    ("progress_state", None),
    ("executing", "1"),
    ("progress_state", None),
    ("progress_state", None),
    ("executing", "2"),
    ("executed", "2"),
    ("progress_state", None),
    ("execution_success", None),
    ("status", None),
    ("executing", None),
]


async def test_the_messages_of_a_job_come_in_their_order(server, graphs):
    server.messages.clear()
    prompt_id, _ = await server.run(graphs.preview())
    assert [(event, data.get("node")) for event, data in server.messages] == FIRST_RUN
    assert {data["prompt_id"] for event, data in server.messages if event != "status"} == {prompt_id}
    assert [data["status"]["exec_info"]["queue_remaining"] for event, data in server.messages if event == "status"] == [1, 1, 0]


async def test_history_holds_prompt_outputs_and_status(server, graphs):
    graph = graphs.preview()
    prompt_id, entry = await server.run(graph, extra_data={"auth_token_comfy_org": "secret", "extra_pnginfo": {"workflow": {"id": "w"}}})
    number, shown_id, shown_graph, extra_data, outputs = entry["prompt"]
    assert (shown_id, shown_graph, outputs) == (prompt_id, graph, ["2"])
    assert isinstance(number, int | float)
    assert (extra_data["client_id"], "auth_token_comfy_org" in extra_data) == (server.client_id, False)
    [image] = entry["outputs"]["2"]["images"]
    assert (image["subfolder"], image["type"]) == ("", "temp")
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("success", True)
    assert [event for event, _ in entry["status"]["messages"]] == ["execution_start", "execution_cached", "execution_success"]


async def test_an_unchanged_graph_is_not_executed_again_and_names_the_same_files(server, graphs):
    graph = graphs.preview()
    _, first = await server.run(graph)
    server.messages.clear()
    prompt_id, second = await server.run(graph)
    assert second["outputs"] == first["outputs"]
    events = [(event, data) for event, data in server.messages if event not in {"status", "progress_state"}]
    assert [event for event, _ in events] == ["execution_start", "execution_cached", "executed", "execution_success", "executing"]
    assert sorted(events[1][1]["nodes"]) == ["1", "2"]
    assert events[2][1]["output"] == first["outputs"]["2"]
    assert events[2][1]["prompt_id"] == prompt_id


async def test_the_size_of_an_image_comes_as_a_text_message(server, graphs):
    graph = graphs.preview() | {
        "7": {"class_type": "GetImageSize", "inputs": {"image": ["1", 0]}},
        "8": {"class_type": "PreviewAny", "inputs": {"source": ["7", 0]}},
    }
    _, entry = await server.run(graph)
    assert server.binaries() == [struct.pack(">II", 3, 1) + b"7" + b"width: 64, height: 64\n batch size: 1"]
    assert entry["outputs"]["8"] == {"text": ["64"]}


ERRORS = [
    ("1", {"color": 1, "width": 64, "height": 64}, "required_input_missing", "batch_size"),
    ("1", {"color": 1, "width": 0, "height": 64, "batch_size": 1}, "value_smaller_than_min", "width"),
    ("1", {"color": 1, "width": 64, "height": 64, "batch_size": 5000}, "value_bigger_than_max", "batch_size"),
    ("1", {"color": 1, "width": "wide", "height": 64, "batch_size": 1}, "invalid_input_type", "width"),
    ("2", {"images": ["1"]}, "bad_linked_input", "images"),
]


@pytest.mark.parametrize(("node_id", "inputs", "kind", "name"), ERRORS)
async def test_a_wrong_input_is_named(server, graphs, node_id, inputs, kind, name):
    graph = graphs.preview()
    graph[node_id]["inputs"] = inputs
    status, body = await server.post("/prompt", {"prompt": graph})
    assert status == 400
    assert body["error"]["type"] == "prompt_outputs_failed_validation"
    assert set(body["error"]) == {"type", "message", "details", "extra_info"}
    [(found_id, entry)] = body["node_errors"].items()
    assert (found_id, entry["class_type"], entry["dependent_outputs"]) == (node_id, graph[node_id]["class_type"], ["2"])
    [error] = entry["errors"]
    assert set(error) == {"type", "message", "details", "extra_info"}
    assert (error["type"], error["extra_info"]["input_name"]) == (kind, name)


async def test_a_value_off_the_list_is_answered_with_the_list(server, graphs):
    graph = graphs.through("ImageToMask", channel="infrared")
    graph["6"] = {"class_type": "MaskToImage", "inputs": {"mask": ["5", 0]}}
    graph["2"]["inputs"]["images"] = ["6", 0]
    _, body = await server.post("/prompt", {"prompt": graph})
    [error] = body["node_errors"]["5"]["errors"]
    assert error["type"] == "value_not_in_list"
    assert error["details"] == "channel: 'infrared' not in ['red', 'green', 'blue', 'alpha']"
    assert error["extra_info"]["received_value"] == "infrared"
    assert error["extra_info"]["input_config"][0] in (["red", "green", "blue", "alpha"], "COMBO")


async def test_a_link_between_different_types_is_refused(server, graphs):
    graph = graphs.preview() | {"3": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 0]}}}
    graph["2"]["inputs"]["images"] = ["3", 0]
    _, body = await server.post("/prompt", {"prompt": graph})
    [error] = body["node_errors"]["3"]["errors"]
    assert error["type"] == "return_type_mismatch"
    assert error["extra_info"]["linked_node"] == ["1", 0]
    assert error["extra_info"]["received_type"] == "IMAGE"


async def test_a_missing_input_file_fails_the_nodes_own_validation(server, graphs):
    graph = graphs.preview() | {"1": {"class_type": "LoadImage", "inputs": {"image": "no such file.png"}}}
    _, body = await server.post("/prompt", {"prompt": graph})
    [error] = body["node_errors"]["1"]["errors"]
    assert (error["type"], error["extra_info"]) == ("custom_validation_failed", {"input_name": "image"})
    assert error["details"] == "image - Invalid image file: no such file.png"


async def test_a_link_to_nowhere_is_an_exception_of_the_validation(server, graphs):
    graph = graphs.preview()
    graph["2"]["inputs"]["images"] = ["99", 0]
    status, body = await server.post("/prompt", {"prompt": graph})
    [error] = body["node_errors"]["2"]["errors"]
    assert (status, error["type"]) == (400, "exception_during_validation")
    assert error["extra_info"]["traceback"]


async def test_an_exception_of_an_inner_node_is_told_as_that_nodes_error(server, graphs):
    graph = graphs.through("ImageInvert")
    del graph["1"]["inputs"]
    status, body = await server.post("/prompt", {"prompt": graph})
    assert (status, list(body["node_errors"])) == (400, ["1"])
    [error] = body["node_errors"]["1"]["errors"]
    assert (error["type"], error["details"], error["extra_info"]["linked_node"]) == (
        "exception_during_inner_validation",
        "'inputs'",
        ["1", 0],
    )


async def test_a_partly_invalid_graph_runs_its_valid_part(server, graphs):
    graph = graphs.preview() | {
        "3": {"class_type": "LoadImage", "inputs": {"image": "no such file.png"}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    status, body = await server.post("/prompt", {"prompt": graph, "client_id": server.client_id})
    assert (status, list(body["node_errors"]), body["node_errors"]["3"]["dependent_outputs"]) == (200, ["3"], ["4"])
    entry = await server.wait(body["prompt_id"])
    assert list(entry["outputs"]) == ["2"]
    assert entry["prompt"][4] == ["2"]


async def test_a_graph_without_outputs_is_refused(server, graphs):
    status, body = await server.post("/prompt", {"prompt": {"1": graphs.image()}})
    assert (status, body["error"]["type"], body["node_errors"] or {}) == (400, "prompt_no_outputs", {})
    status, body = await server.post("/prompt", {})
    assert (status, body["error"]["type"]) == (400, "no_prompt")


async def test_an_unknown_class_is_refused(server, graphs):
    graph = graphs.preview() | {"9": {"class_type": "NoSuchNode", "inputs": {}, "_meta": {"title": "Mine"}}}
    status, body = await server.post("/prompt", {"prompt": graph})
    assert (status, body["error"]["details"]) == (400, "Node ID '#9'")
    assert body["error"]["type"] in {"missing_node_type", "invalid_prompt"}  # the latter before 0.4


async def test_what_is_no_api_graph_is_answered_500(server):
    status, text = await server.post("/prompt", {"prompt": {"last_node_id": 3, "nodes": [], "links": []}})
    assert (status, "Server got itself in trouble" in text) == (500, True)
    async with server.session.post("/prompt", data=b"{") as response:
        assert response.status == 500


async def test_values_are_coerced_and_unknown_inputs_ignored(server, graphs):
    graph = graphs.preview()
    graph["1"]["inputs"] |= {"width": "64", "height": 64.7, "batch_size": True, "colour": "blue"}
    _, entry = await server.run(graph)
    inputs = entry["prompt"][2]["1"]["inputs"]
    assert (inputs["width"], inputs["height"], inputs["batch_size"]) == (64, 64, 1)


async def test_partial_execution_runs_the_named_output_only(server, graphs):
    graph = graphs.preview() | {"4": graphs.image(), "3": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}}}
    _, entry = await server.run(graph, partial_execution_targets=["3"])
    assert (list(entry["outputs"]), entry["prompt"][4]) == (["3"], ["3"])


async def test_without_client_id_only_status_and_progress_are_told_to_all(server, graphs):
    server.messages.clear()
    status, body = await server.post("/prompt", {"prompt": graphs.preview()})
    assert status == 200
    await server.listen(lambda event, data: event == "status" and data["status"]["exec_info"]["queue_remaining"] == 0)
    assert set(server.events()) == {"status", "progress_state"}
    assert (await server.wait(body["prompt_id"]))["status"]["completed"]


async def test_a_request_from_another_origin_is_refused(server):
    async with server.session.get("/prompt", headers={"Origin": "http://example.com"}) as response:
        assert response.status == 403
    async with server.session.get("/prompt", headers={"Origin": server.url}) as response:
        assert response.status == 200


async def test_every_route_exists_under_api_too(server):
    for path in ("/prompt", "/queue", "/system_stats", "/features", "/embeddings", "/object_info/EmptyImage"):
        assert (await server.get(path))[0] == (await server.get(f"/api{path}"))[0] == 200
    assert (await server.get("/health"))[0] == 404


async def test_object_info_describes_classes(server):
    status, body = await server.get("/object_info/EmptyImage")
    info = body["EmptyImage"]
    assert status == 200
    assert info["input_order"] == {"required": ["width", "height", "batch_size", "color"]}
    assert list(info["input"]["required"]) == ["width", "height", "batch_size", "color"]
    kind, options = info["input"]["required"]["width"]
    assert (kind, options["default"], options["min"], options["max"]) == ("INT", 512, 1, 16384)
    assert (info["output"], info["output_is_list"], info["output_name"], info["output_node"]) == (["IMAGE"], [False], ["IMAGE"], False)
    assert (await server.get("/object_info/NoSuchNode")) == (200, {})


async def test_uploads_keep_apart_what_differs(server, png):
    name = f"{uuid.uuid4().hex}.png"
    assert await server.upload(name, png()) == (200, {"name": name, "subfolder": "", "type": "input"})
    assert (await server.upload(name, png()))[1]["name"] == name
    assert (await server.upload(name, png((1, 2, 3))))[1]["name"] == name.replace(".png", " (1).png")
    assert (await server.upload(name, png((4, 5, 6)), overwrite="true"))[1]["name"] == name
    assert (await server.view({"filename": name, "type": "input"})) == (200, png((4, 5, 6)))
    assert (await server.upload(name, png(), subfolder="../../out"))[0] == 400
    assert (await server.upload("notes.txt", b"any bytes", subfolder="sub", overwrite="true"))[1]["subfolder"] == "sub"
    async with server.session.post("/upload/image", data={"overwrite": "true"}) as response:
        assert response.status == 400


async def test_view_sends_files_parts_and_conversions(server, png):
    name = f"{uuid.uuid4().hex}.png"
    await server.upload(name, png())
    item = {"filename": name, "type": "input"}
    assert await server.view(item, Range="bytes=1-3") == (206, b"PNG")
    async with server.session.get("/view", params=item) as response:
        etag, media_type = response.headers["ETag"], response.content_type
    assert media_type == "image/png"
    assert (await server.view(item, **{"If-None-Match": etag}))[0] == 304
    assert (await server.view({"filename": f"{name} [input]"}))[0] == 200
    assert (await server.view(item | {"preview": "webp;50"}))[1][8:12] == b"WEBP"
    assert (await server.view(item | {"preview": "jpeg;70"}))[1][:2] == b"\xff\xd8"
    assert (await server.view(item | {"filename": "none.png"}))[0] == 404
    assert (await server.view(item | {"filename": "../secret"}))[0] == 400
    assert (await server.view(item | {"type": "elsewhere"}))[0] == 400
