"""The Postman collection is what its generator makes of the OpenAPI document."""

from __future__ import annotations

import json
import re

from scripts.postman import COLLECTION, DOCUMENT, build_collection, to_text


def collection():
    return json.loads(COLLECTION.read_text("utf-8"))


def test_collection_is_true():
    made = to_text(build_collection(json.loads(DOCUMENT.read_text("utf-8"))))
    assert COLLECTION.read_text("utf-8") == made, "refresh it: python scripts/postman.py"


def test_collection_has_every_operation_once():
    document = json.loads(DOCUMENT.read_text("utf-8"))
    operations = sum(len(one) for one in document["paths"].values())
    assert sum(len(folder["item"]) for folder in collection()["item"][1:]) == operations


def test_collection_names_and_carries_on_what_its_clients_know():
    walk = {request["name"]: request for request in collection()["item"][0]["item"]}
    assert {"3. 提交工作流", "4. 查询任务状态"} <= walk.keys()
    script = "\n".join(walk["3. 提交工作流"]["event"][0]["script"]["exec"])
    assert "pm.collectionVariables.set('task_id', answer.task_id);" in script
    assert "{{task_id}}" in walk["4. 查询任务状态"]["request"]["url"]["raw"]


def test_collection_uses_only_variables_that_it_has():
    text = COLLECTION.read_text("utf-8")
    assert set(re.findall(r"\{\{(\w+)\}\}", text)) <= {one["key"] for one in collection()["variable"]}
