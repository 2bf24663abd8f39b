# ruff: noqa: INP001, T201 -- a command that prints, not a package
"""Writes ``ComfyUI_API.postman_collection.json`` from ``docs/openapi.json``.

    python scripts/postman.py

First a walk whose requests carry on what the one before has answered, named as in the collection of the middleware that this service
takes over; then every operation of the document, a folder a tag.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "openapi.json"
COLLECTION = ROOT / "ComfyUI_API.postman_collection.json"

Json = dict[str, Any]

VARIABLES = {"base_url": "http://127.0.0.1:8000", "task_id": "", "prompt_id": "", "filename": "", "asked": "0"}
OF_PATHS = {"task_id": "task_id", "job_id": "task_id", "prompt_id": "prompt_id", "filename": "filename"}  # path parameter -> variable
MOST_ASKED = 100  # polls of one task, half a second apart where newman is told --delay-request 500

WORKFLOW: Json = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "postman"}},
}
IS_200 = "pm.test('status is 200', () => pm.response.to.have.status(200));"
ANSWER = "const answer = pm.response.json();"


def build_collection(document: Json) -> Json:
    """Return the collection (Postman's format 2.1)."""
    return {
        "info": {
            "name": "ComfyUI API (Atelier)",
            "description": "Run the first folder as it stands: each request carries on what the one before has answered.",
            "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
        },
        "variable": [{"key": key, "value": value} for key, value in VARIABLES.items()],
        "item": [{"name": "流程 (walk)", "item": _walk()}, *_folders(document)],
    }


def _walk() -> list[Json]:
    submit = {"workflow": WORKFLOW, "params": {"1.color": 12345}, "timeout": 600}
    scenario = {"prompt": "a beautiful sunset over mountains", "width": 64, "height": 64, "steps": 2}
    history = "/api/v1/workflows/{{prompt_id}}/history"
    return [
        _request("1. 健康检查", "GET", "/api/health", tests=[IS_200]),
        _request("2. 获取工作流列表", "GET", "/api/workflows", tests=[IS_200]),
        _request("3. 提交工作流", "POST", "/api/workflow/submit", submit, [
            IS_200, ANSWER, _carry("task_id", "answer.task_id"), _carry("asked", "0"),
        ]),
        _request("4. 查询任务状态", "GET", "/api/task/{{task_id}}", tests=[
            IS_200, ANSWER, *_again("4. 查询任务状态", "['PENDING', 'PROCESSING'].includes(answer.status)"),
            "else {",
            "  pm.test('the task is COMPLETED', () => pm.expect(answer.status).to.eql('COMPLETED'));",
            f"  {_carry('filename', 'answer.outputs[0].filename')}",
            "}",
        ]),
        _request("5. 获取图片", "GET", "/api/image/{{filename}}", tests=[
            IS_200, "pm.test('it is a picture', () => pm.expect(pm.response.headers.get('Content-Type')).to.eql('image/png'));",
        ]),
        _request("6. 获取执行历史", "GET", "/api/history", tests=[
            IS_200, ANSWER, "const ids = answer.history.map((task) => task.task_id);",
            "pm.test('the task is in it', () => pm.expect(ids).to.include(pm.collectionVariables.get('task_id')));",
        ]),
        _request("7. 提交文生图场景", "POST", "/api/v1/scenarios/text2img", scenario, [
            IS_200, ANSWER, "pm.test('code is 200', () => pm.expect(answer.code).to.eql(200));",
            _carry("prompt_id", "answer.data.prompt_id"), _carry("asked", "0"),
        ]),
        _request("8. 获取场景历史", "GET", history, tests=[
            IS_200, ANSWER, *_again("8. 获取场景历史", "['pending', 'running'].includes(answer.data.status.status_str)"),
            "else pm.test('it has outputs', () => pm.expect(Object.keys(answer.data.outputs)).to.not.be.empty);",
        ]),
    ]  # fmt: skip


def _carry(variable: str, value: str) -> str:
    return f"pm.collectionVariables.set('{variable}', {value});"


def _again(name: str, condition: str) -> list[str]:
    """Return the lines that send a request again while a condition holds, up to ``MOST_ASKED`` times."""
    return [
        "const asked = Number(pm.collectionVariables.get('asked')) + 1;",
        "pm.collectionVariables.set('asked', asked);",
        f"if ({condition} && asked < {MOST_ASKED}) postman.setNextRequest('{name}');",
    ]


def _folders(document: Json) -> list[Json]:
    folders: dict[str, list[Json]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            folders.setdefault(operation["tags"][0], []).append(_operation(document, path, method, operation))
    return [{"name": tag, "item": items} for tag, items in folders.items()]


def _operation(document: Json, path: str, method: str, operation: Json) -> Json:
    parameters = operation.get("parameters", [])
    filled = re.sub(r"\{(\w+)\}", lambda found: _path_value(found[1], parameters), path)
    query = [(one["name"], str(_example(document, one))) for one in parameters if one["in"] == "query" and one.get("required")]
    content = operation.get("requestBody", {}).get("content", {})
    body = _example(document, content["application/json"]) if "application/json" in content else None
    made = _request(operation["summary"], method.upper(), filled, body, query=query)
    if "multipart/form-data" in content:
        made["request"]["body"] = {"mode": "formdata", "formdata": _form(content["multipart/form-data"]["schema"])}
    return made


def _path_value(name: str, parameters: list[Json]) -> str:
    if name in OF_PATHS:
        return f"{{{{{OF_PATHS[name]}}}}}"
    found = next((one for one in parameters if one["name"] == name and one["in"] == "path"), {})
    return str((found.get("schema", {}).get("examples") or [name])[0])


def _form(schema: Json) -> list[Json]:
    properties = schema["properties"].items()
    return [
        {"key": name, "type": "file", "src": []}
        if one.get("format") == "binary"
        else {"key": name, "type": "text", "value": "", "disabled": True}
        for name, one in properties
    ]


def _example(document: Json, described: Json) -> Any:  # noqa: ANN401 -- a JSON value
    """Return an example of a media type, a parameter or a schema: its own, or one put together of its required parts."""
    found: Any = described.get("default", {"integer": 1, "number": 1.0, "boolean": True, "array": []}.get(described.get("type", ""), ""))
    if "example" in described:
        found = described["example"]
    elif described.get("examples"):
        found = described["examples"][0]
    elif "schema" in described:
        found = _example(document, described["schema"])
    elif "$ref" in described:
        found = _example(document, document["components"]["schemas"][described["$ref"].rpartition("/")[2]])
    elif "anyOf" in described:
        found = _example(document, described["anyOf"][0])
    elif described.get("type") == "object":
        found = {name: _example(document, described["properties"][name]) for name in described.get("required", [])}
    return found


def _request(
    name: str, method: str, path: str, body: object = None, tests: list[str] | None = None, query: list[tuple[str, str]] | None = None
) -> Json:
    pairs = "&".join(f"{key}={value}" for key, value in query or ())
    url: Json = {
        "raw": "{{base_url}}" + path + (f"?{pairs}" if pairs else ""),
        "host": ["{{base_url}}"],
        "path": path.strip("/").split("/"),
    }
    if query:
        url["query"] = [{"key": key, "value": value} for key, value in query]
    request: Json = {"method": method, "header": [], "url": url}
    if body is not None:
        raw = json.dumps(body, indent=2, ensure_ascii=False)
        request["header"] = [{"key": "Content-Type", "value": "application/json"}]
        request["body"] = {"mode": "raw", "raw": raw, "options": {"raw": {"language": "json"}}}
    events = [{"listen": "test", "script": {"type": "text/javascript", "exec": tests}}] if tests else []
    return {"name": name, "request": request, "response": []} | ({"event": events} if events else {})


def to_text(collection: Json) -> str:
    """Return the collection's text."""
    return json.dumps(collection, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    COLLECTION.write_text(to_text(build_collection(json.loads(DOCUMENT.read_text("utf-8")))), encoding="utf-8")
    print(COLLECTION)
