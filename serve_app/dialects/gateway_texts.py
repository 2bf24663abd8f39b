"""What the gateway (C) says: its own Chinese texts, and English ones for those who prefer another language."""

from __future__ import annotations

from typing import Final, NamedTuple

from starlette.datastructures import Headers


class Text(NamedTuple):
    """A message in both languages."""

    zh: str
    en: str

    def said(self, headers: Headers) -> str:
        """Return the message in the language that the headers of a request prefer."""
        return self.zh if prefers_chinese(headers) else self.en


SUCCESS: Final = Text("success", "success")  # where nothing else is said
SUBMITTED: Final = Text("工作流已提交", "workflow submitted")
HISTORY_READ: Final = Text("获取历史记录成功", "history read")
QUEUE_READ: Final = Text("获取队列状态成功", "queue status read")
UPLOADED: Final = Text("上传成功", "uploaded")
URL_READ: Final = Text("获取图片 URL 成功", "picture URL read")
CONNECTED: Final = Text("WebSocket 连接已建立", "WebSocket connected")

INVALID: Final = Text("请求参数验证失败", "the request is not valid")
NOT_FOUND: Final = Text("资源不存在", "not found")
NO_SUCH_PROMPT: Final = Text("任务不存在", "no such task")
NO_SUCH_FILE: Final = Text("文件不存在", "no such file")
NO_SUCH_SCENARIO: Final = Text("Workflow 模板文件不存在", "no such workflow template")
INTERNAL: Final = Text("服务器内部错误", "internal server error")
QUEUE_FULL: Final = Text("任务队列已满", "the queue is full")
UNREACHABLE: Final = Text("ComfyUI 服务不可用", "ComfyUI is not reachable")
WORKFLOW_INVALID: Final = Text("工作流无效", "the workflow is not valid")
FILE_FAILED: Final = Text("文件操作失败", "the file operation failed")


def prefers_chinese(headers: Headers) -> bool:
    """Whether nothing is preferred to Chinese (RFC 9110, section 12.5.4): so it is for who says nothing, or takes anything."""
    best, best_weight = "zh", 0.0
    for item in headers.get("accept-language", "").split(","):
        language, _, parameter = item.strip().partition(";")
        weight = _weight(parameter)
        if language and weight > best_weight:
            best, best_weight = language.lower(), weight
    return best == "*" or best.partition("-")[0] == "zh"


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    try:
        return float(value) if name == "q" else 1.0
    except ValueError:
        return 0.0
