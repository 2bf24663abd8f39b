"""Fields reach the line, and the job's id is bound once."""

from __future__ import annotations

import asyncio
import json
import logging
import sys

from deployments.jobs.logs import JsonFormatter, bound, fields, get_logger


def test_fields_are_nested_where_serve_passes_them_through():
    with bound(job_id="j", attempt=2):
        assert fields(action="a") == {"ray_serve_extra_fields": {"job_id": "j", "attempt": 2, "action": "a"}}
    assert fields(action="a") == {"ray_serve_extra_fields": {"action": "a"}}


async def test_bound_fields_belong_to_their_task():
    async def run(job_id):
        with bound(job_id=job_id):
            await asyncio.sleep(0)
            return fields()["ray_serve_extra_fields"]["job_id"]

    assert list(await asyncio.gather(run("a"), run("b"))) == ["a", "b"]


def test_a_line_is_one_json_object_with_the_traceback_inside():
    logger = get_logger("test")
    try:
        raise ValueError("no\nway")
    except ValueError:
        record = logger.makeRecord(logger.name, logging.ERROR, "f", 1, "it broke", (), sys.exc_info(), extra=fields(action="a"))
    line = json.loads(JsonFormatter().format(record))
    assert (line["levelname"], line["message"], line["action"]) == ("ERROR", "it broke", "a")
    assert "ValueError: no\nway" in line["exc_text"]
