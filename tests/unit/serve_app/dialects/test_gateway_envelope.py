"""Every problem becomes an envelope, whatever answered it."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.routing import Route, Router

from deployments.jobs import errors
from deployments.jobs.errors import NodeProblem
from serve_app.api.errors import problem_of, problem_response
from serve_app.dialects.gateway_envelope import envelope_answers, to_envelope
from serve_app.dialects.problem_translation import ProblemTranslation


def wrapped(app, *, mapped):
    return ProblemTranslation(app, **envelope_answers(mapped=mapped).kwargs)


ENGLISH = Headers({"accept-language": "en"})
CHINESE = Headers({})
OF_A_NODE = NodeProblem("3", "KSampler", "model", "required_input_missing", "the input is missing")
OF_A_FIELD = NodeProblem("", "", "prompt", "missing", "say what the picture shall show")


@pytest.mark.parametrize(
    ("error", "path", "code", "message"),
    [
        (errors.InvalidInput("no"), "/api/v1/queue/clear", 400, "请求参数验证失败"),
        (errors.JobNotFound("1"), "/api/v1/workflows/1/history", 404, "任务不存在"),
        (errors.FileNotFound("a.png"), "/api/v1/images/url", 404, "文件不存在"),
        (errors.WorkflowNotFound("x"), "/api/v1/scenarios/x", 404, "Workflow 模板文件不存在"),
        (errors.NotFound("none"), "/api/v1/workflows/submit", 404, "资源不存在"),
        (errors.StoreUnavailable("away"), "/api/v1/queue/status", 500, "服务器内部错误"),
        (errors.QueueFull("comfyui", 5, 1), "/api/v1/workflows/submit", 500, "任务队列已满"),
        (errors.BackendUnavailable("away"), "/api/v1/workflows/submit", 1001, "ComfyUI 服务不可用"),
        (errors.BackendNotConfigured("none"), "/api/v1/workflows/submit", 1001, "ComfyUI 服务不可用"),
        (errors.ObjectInfoNeeded("ui"), "/api/v1/workflows/submit", 1001, "ComfyUI 服务不可用"),
        (errors.WorkflowInvalid("bad", (OF_A_NODE,)), "/api/v1/workflows/submit", 1002, "工作流无效"),
        (errors.WorkflowInvalid("bad", (OF_A_NODE,)), "/api/v1/scenarios/text2img", 1002, "工作流无效"),
        (errors.WorkflowInvalid("bad", (OF_A_FIELD,)), "/api/v1/scenarios/text2img", 400, "请求参数验证失败"),
        (errors.InvalidInput("no graph"), "/api/v1/workflows/submit", 1002, "工作流无效"),
        (errors.UnsupportedMedia("text"), "/api/v1/images/upload", 1003, "文件操作失败"),
        (errors.UploadFailed("disk"), "/api/v1/images/upload", 1003, "文件操作失败"),
        (errors.MediaTooLarge("long"), "/api/v1/images/upload", 400, "请求参数验证失败"),
    ],
)
def test_to_envelope_has_that_services_codes_and_texts(error, path, code, message):
    problem = problem_of(error, path).model_dump()
    assert to_envelope(problem, path, CHINESE) == {"code": code, "message": message, "data": None}


def test_to_envelope_says_the_details_in_english():
    problem = problem_of(errors.JobNotFound("42"), "/api/v1/workflows/42/history").model_dump()
    assert to_envelope(problem, "/api/v1/workflows/42/history", ENGLISH)["message"] == "no such task: there is no job 42"


def test_to_envelope_says_nothing_twice():
    problem = problem_of(errors.NotFound("not found: see /docs for what there is"), "/api/v1/none").model_dump()
    assert to_envelope(problem, "/api/v1/none", ENGLISH)["message"] == "not found: see /docs for what there is"


async def _refuse(_):
    return problem_response(413, "too long", "media_too_large", headers={"Retry-After": "2"})


async def _miss(_):
    return problem_response(404, "none", "not_found")


async def _break(_):
    raise RuntimeError("a secret")


async def _fine(_):
    return PlainTextResponse("bytes")


def client(*, mapped: bool = False) -> httpx.AsyncClient:
    routes = [
        Route(f"/{prefix}{name}", route)
        for prefix in ("api/v1/", "v1/")
        for name, route in (("long", _refuse), ("none", _miss), ("broken", _break), ("fine", _fine))
    ]
    app = wrapped(Router(routes=routes), mapped=mapped)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://atelier.test")


async def test_problems_below_the_prefix_leave_as_envelopes_with_status_200():
    async with client() as http:
        answer = await http.get("/api/v1/long")
    assert (answer.status_code, answer.headers["content-type"], answer.headers["retry-after"]) == (200, "application/json", "2")
    assert answer.json() == {"code": 400, "message": "请求参数验证失败", "data": None}


@pytest.mark.parametrize(("path", "status", "code"), [("long", 400, 400), ("none", 404, 404), ("broken", 500, 500)])
async def test_mapped_answers_have_the_status_of_their_code(path, status, code):
    async with client(mapped=True) as http:
        answer = await http.get(f"/api/v1/{path}")
    assert (answer.status_code, answer.json()["code"], answer.json()["data"]) == (status, code, None)


async def test_a_fault_of_ours_tells_nothing():
    async with client() as http:
        answer = await http.get("/api/v1/broken", headers={"Accept-Language": "en"})
    assert answer.json()["code"] == 500
    assert "secret" not in answer.text


async def test_what_is_no_problem_and_other_paths_pass():
    async with client() as http:
        assert (await http.get("/api/v1/fine")).text == "bytes"
        assert (await http.get("/v1/none")).headers["content-type"] == "application/problem+json"


async def test_an_answer_that_has_begun_is_broken_off():
    async def begin(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    sent: list[object] = []
    scope = {"type": "http", "path": "/api/v1/x", "headers": []}

    async def note(message):
        sent.append(message)

    with pytest.raises(RuntimeError):
        await wrapped(begin, mapped=False)(scope, asyncio.Event().wait, note)
    assert json.dumps(sent) == json.dumps([{"type": "http.response.start", "status": 200, "headers": []}])
