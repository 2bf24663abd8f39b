"""Which language the gateway speaks."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from serve_app.dialects import gateway_texts as texts


@pytest.mark.parametrize(
    ("accepted", "chinese"),
    [
        (None, True),
        ("", True),
        ("*", True),  # Node's fetch
        ("zh-CN,zh;q=0.9,en;q=0.8", True),
        ("en-US,en;q=0.9", False),
        ("en;q=0.3, zh;q=0.8", True),
        ("fr, *;q=0.5", False),
        ("en;q=rubbish", True),
        ("zh;q=0, de;q=0.1", False),
    ],
)
def test_said_speaks_chinese_unless_another_language_is_preferred(accepted, chinese):
    headers = Headers({} if accepted is None else {"accept-language": accepted})
    assert texts.SUBMITTED.said(headers) == ("工作流已提交" if chinese else "workflow submitted")
