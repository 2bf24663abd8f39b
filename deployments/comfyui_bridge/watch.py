"""What is heard about one prompt while a server has it: hints, progress, previews, pictures that exist nowhere else."""

from __future__ import annotations

import asyncio
import time

from deployments.comfyui_client.messages import Message, Picture
from deployments.engines.comfyui.outputs import websocket_output_nodes
from deployments.engines.comfyui.progress import GraphProgress
from deployments.jobs.model import JsonObject

LARGEST_COUNT = 2**53  # of steps: a whole number in JSON may be larger than any float, and nothing can be computed with it
MAX_PICTURE_BYTES = 512 * 2**20  # of one prompt, that the WebSocket alone carries: they wait in memory until its end
ENDINGS = frozenset({"execution_success", "execution_error", "execution_interrupted"})


class PromptWatch:
    """One prompt on one server. Fed by the server's socket, read by the attempt that sent it."""

    def __init__(self, prompt_id: str, graph: JsonObject, generation: int) -> None:
        """Begin before the prompt is sent: events may come before the answer.

        Args:
            prompt_id: of this pass of this attempt.
            graph: as sent.
            generation: of the connection whose client id the prompt is sent under: events go to no other.
        """
        self.prompt_id = prompt_id
        self.generation = generation
        self.progress = GraphProgress(graph)
        self.preview: Picture | None = None
        self.pictures: list[tuple[str, Picture]] = []  # outputs of SaveImageWebsocket nodes, in order
        self.heard_at = time.monotonic()
        self.hint = False  # it may have ended: look
        self.hints = 0  # so far: one that comes during a look must not be forgotten after it
        self.over = False  # it has, says the server: nothing more is sent about it
        self.news = asyncio.Event()
        self.socket_nodes = frozenset(websocket_output_nodes(graph))  # their pictures are sent here and written nowhere
        self.overflowed = False  # more pictures came than are kept
        self._kept_bytes = 0
        self._current: str | None = None

    @property
    def current(self) -> str | None:
        """The node that runs, as far as the events tell."""
        return self._current

    def hear(self, message: Message) -> None:
        """Take an event about this prompt."""
        self.heard_at = time.monotonic()
        data = message.data
        match message.type:
            case "executing" if message.comfy_node is None:
                self.end()  # sent after the history was written
            case "executing":
                self._current = message.comfy_node
                self.progress.on_executing(message.comfy_node or "")
            case "execution_cached":
                nodes = data.get("nodes")
                self.progress.on_cached([str(node) for node in nodes] if isinstance(nodes, list) else [])
            case "progress":
                self._current = message.comfy_node or self._current
                value, most = _count(data.get("value")), _count(data.get("max"))
                if value is not None and most is not None:
                    self.progress.on_progress(self._current or "", value, most)
            case "executed":
                self.progress.on_executed(message.comfy_node or "")
            case kind if kind in ENDINGS:
                self.end()
            case _:
                pass
        self.news.set()

    def see(self, picture: Picture) -> None:
        """Take a picture of this prompt."""
        self.heard_at = time.monotonic()
        comfy_node = picture.comfy_node or self._current
        if comfy_node in self.socket_nodes:
            self._keep(str(comfy_node), picture)
        else:
            self.preview = picture
        self.news.set()

    def suspect(self) -> None:
        """Have it looked at: something happened on the server that may have been its end."""
        self.hint = True
        self.hints += 1
        self.news.set()

    def end(self) -> None:
        """Note that nothing more will be heard."""
        self.over = True
        self.suspect()

    def _keep(self, comfy_node: str, picture: Picture) -> None:
        self._kept_bytes += len(picture.data)
        self.overflowed = self.overflowed or self._kept_bytes > MAX_PICTURE_BYTES
        if not self.overflowed:
            self.pictures.append((comfy_node, picture))


def _count(value: object) -> float | None:
    return value if isinstance(value, int | float) and 0 <= value <= LARGEST_COUNT else None
