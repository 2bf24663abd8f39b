"""HTTP routes that tell what the server is and has."""

from __future__ import annotations

import os
import sys

from aiohttp import web

from deployments.fake_comfyui.backend import Backend
from deployments.fake_comfyui.config import FakeConfig
from deployments.fake_comfyui.object_info import describe_class, describe_classes

DEPLOY_ENVIRONMENT = "atelier-fake"  # how a client can tell

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Fake backend</title></head>
<body style="font-family: sans-serif; max-width: 40em; margin: 4em auto">
<h1>This is a fake backend</h1>
<p>It speaks ComfyUI's protocol for tests and demonstrations, and has no models: its samplers paint coloured discs.
Every picture that it makes carries the words &ldquo;fake backend&rdquo;.</p>
<p>It claims to be version {version} and knows {count} node classes: <a href="/object_info">/object_info</a>.</p>
</body></html>
"""


class InfoRoutes:
    """The handlers."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._site = backend.site

    def routes(self) -> list[web.RouteDef]:
        """Return the routes without their twins under /api."""
        return [
            web.get("/system_stats", self.get_system_stats),
            web.get("/features", self.get_features),
            web.get("/object_info", self.get_object_info),
            web.get("/object_info/{class_type}", self.get_class_info),
            web.get("/models", self.get_model_folders),
            web.get("/models/{folder}", self.get_models),
            web.get("/embeddings", self.get_embeddings),
            web.get("/ws", self.open_socket),
        ]

    async def get_page(self, _request: web.Request) -> web.Response:
        """Say in plain words what this is."""
        text = PAGE.format(version=self._site.config.version, count=len(self._backend.classes))
        return web.Response(text=text, content_type="text/html")

    async def get_system_stats(self, _request: web.Request) -> web.Response:
        """Describe the machine in the shape of a real server on the CPU."""
        total, free = _memory()
        system = {
            "os": os.name,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": self._site.config.version,
            "required_frontend_version": None,
            "python_version": sys.version,
            "pytorch_version": "none",
            "embedded_python": False,
            "argv": sys.argv,
            "deploy_environment": DEPLOY_ENVIRONMENT,
        }
        device = {"name": "cpu", "type": "cpu", "index": None, "vram_total": total, "vram_free": free}
        return web.json_response({"system": system, "devices": [device | {"torch_vram_total": total, "torch_vram_free": free}]})

    async def get_features(self, _request: web.Request) -> web.Response:
        """Return what the server supports."""
        return web.json_response(self._backend.features)

    async def get_object_info(self, _request: web.Request) -> web.Response:
        """Describe all node classes."""
        return web.json_response(describe_classes(self._backend.classes, self._site))

    async def get_class_info(self, request: web.Request) -> web.Response:
        """Describe one class; an unknown one gives an empty object."""
        node_class = self._backend.classes.get(request.match_info["class_type"])
        return web.json_response({} if node_class is None else {node_class.name: describe_class(node_class, self._site)})

    async def get_model_folders(self, _request: web.Request) -> web.Response:
        """List the kinds of models."""
        return web.json_response(list(_models(self._site.config)))

    async def get_models(self, request: web.Request) -> web.Response:
        """List the models of a kind."""
        models = _models(self._site.config).get(request.match_info["folder"])
        return web.Response(status=404) if models is None else web.json_response(models)

    async def get_embeddings(self, _request: web.Request) -> web.Response:
        """List textual inversions: there are none."""
        return web.json_response([])

    async def open_socket(self, request: web.Request) -> web.WebSocketResponse:
        """Serve a WebSocket."""
        return await self._backend.hub.serve(request, self._backend.greet)


def _models(config: FakeConfig) -> dict[str, tuple[str, ...]]:
    return {
        "checkpoints": config.checkpoints,
        "loras": config.loras,
        "vae": config.vaes,
        "text_encoders": config.text_encoders,
        "diffusion_models": config.diffusion_models,
        "embeddings": (),
        "upscale_models": (),
        "controlnet": (),
    }


def _memory() -> tuple[int, int]:
    """Return the machine's memory and what is free of it, bytes."""
    page = os.sysconf("SC_PAGE_SIZE")
    return os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
