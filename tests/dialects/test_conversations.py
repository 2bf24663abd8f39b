"""Every route, field and error of dialects A, B and C, as the golden files say."""

from __future__ import annotations

import uuid

import pytest

from tests.dialects.golden import conversations, hold

pytestmark = pytest.mark.serve

DIALECTS = ("task_service", "middleware", "gateway")


@pytest.mark.parametrize(
    "steps",
    [pytest.param(steps, id=f"{dialect}: {name}") for dialect in DIALECTS for name, steps in conversations(dialect)],
)
def test_conversation(api, media_server, steps):
    unique = f"golden-{uuid.uuid4().hex[:8]}"
    hold(api, steps, media=media_server, unique=unique, stem=unique, picture=f"{unique}.png")
