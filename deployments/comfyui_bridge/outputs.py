"""Taking what a prompt has made out of the backend, at once: its files are not ours, and others may overwrite or delete them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from deployments.comfyui_client.http import ComfyHttp
from deployments.comfyui_client.messages import Picture
from deployments.engines.comfyui.outputs import OutputPlace, output_name
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.probe import MediaInfo, probe
from deployments.jobs.errors import OutputsLost, ServiceError
from deployments.jobs.media_types import SNIFF_BYTES, sniff
from deployments.jobs.ports import OutputFile

AT_ONCE = 4  # downloads from one backend: more only makes its event loop slower

# By extension, for what has no signature. Anything else is served as bytes that no browser interprets.
TYPE_OF_EXTENSION: Mapping[str, str] = {
    "txt": "text/plain",
    "json": "application/json",
    "glb": "model/gltf-binary",
    "obj": "model/obj",
    "stl": "model/stl",
    "aac": "audio/aac",
}
UNKNOWN_TYPE = "application/octet-stream"
WITH_TRAITS = ("image/", "video/", "audio/")


class OutputTaker:
    """Brings the outputs of one job into its work folder, each under a name that no other job has."""

    def __init__(self, http: ComfyHttp, job_id: str, folder: Path, limits: MediaLimits, max_bytes: int) -> None:
        """Take outputs of one job.

        Args:
            http: of the backend.
            job_id: begins the files' names.
            folder: where they go.
            limits: of what is looked into for its size and length.
            max_bytes: of all outputs together.
        """
        self._http = http
        self._job_id = job_id
        self._folder = folder
        self._limits = limits
        self._names: set[str] = set()
        self._room_bytes = max_bytes
        self._room = asyncio.Semaphore(AT_ONCE)

    async def take(self, places: tuple[OutputPlace, ...]) -> tuple[list[OutputFile], list[OutputPlace]]:
        """Download files and write texts.

        Returns:
            The files in the order of ``places``, and the places whose file the backend no longer has.

        Raises:
            BackendLost: it does not answer.
            MediaTooLarge: the outputs of the job are longer together than is taken.
        """
        paths = [self._path(place.comfy_node, place.index, place.filename or "text.txt") for place in places]
        tasks: list[asyncio.Task[OutputFile | None]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks += [group.create_task(self._one(place, path)) for place, path in zip(places, paths, strict=True)]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the others were stopped for it
        results = [task.result() for task in tasks]
        gone = [place for place, result in zip(places, results, strict=True) if result is None]
        return [result for result in results if result is not None], gone

    async def keep(self, pictures: list[tuple[str, Picture]], first: Mapping[str, int]) -> list[OutputFile]:
        """Write pictures that came over the WebSocket.

        Args:
            pictures: with the node that made each.
            first: how many outputs of a node there are already, for the names.
        """
        counts = dict(first)
        files = []
        for comfy_node, picture in pictures:
            n = counts.get(comfy_node, 0)
            counts[comfy_node] = n + 1
            path = self._path(comfy_node, n, f"picture.{picture.media_type.partition('/')[2]}")
            await asyncio.to_thread(path.write_bytes, picture.data)
            files.append(await asyncio.to_thread(self._describe, path, comfy_node, temporary=False))
        return files

    async def _one(self, place: OutputPlace, path: Path) -> OutputFile | None:
        async with self._room:
            if place.text is not None:
                await asyncio.to_thread(path.write_text, place.text, "utf-8")
            else:
                try:
                    where = {"filename": place.filename, "subfolder": place.subfolder, "type": place.type}
                    self._room_bytes -= await self._http.download(where, path, self._room_bytes)
                except OutputsLost:
                    return None
        return await asyncio.to_thread(self._describe, path, place.comfy_node, temporary=place.type == "temp")

    def _path(self, comfy_node: str, n: int, filename: str) -> Path:
        name = output_name(self._job_id, comfy_node, n, filename)
        while name in self._names:  # of nodes whose ids differ in what no file name holds, such as 57:3 and 57-3
            n += 1
            name = output_name(self._job_id, comfy_node, n, filename)
        self._names.add(name)
        return self._folder / name

    def _describe(self, path: Path, comfy_node: str, *, temporary: bool) -> OutputFile:
        with path.open("rb") as file:
            found = sniff(file.read(SNIFF_BYTES))
        # A name may lie, so content comes first; text has no signature, and what looks like markup must not become a page of ours.
        media_type = found if found and found.startswith(WITH_TRAITS) else TYPE_OF_EXTENSION.get(path.suffix[1:], UNKNOWN_TYPE)
        if found in {"text/html", "image/svg+xml", "application/xml"}:
            media_type = "text/plain"
        info = self._probe(path) if media_type.startswith(WITH_TRAITS) else None
        return OutputFile(
            path,
            path.name,
            media_type,
            width=(info.width or None) if info else None,
            height=(info.height or None) if info else None,
            duration_s=info.duration_s if info else None,
            comfy_node=comfy_node,
            temporary=temporary,
        )

    def _probe(self, path: Path) -> MediaInfo | None:
        with contextlib.suppress(ServiceError):  # of a format that we cannot read: it is the user's all the same
            return probe(path, self._limits)
        return None
