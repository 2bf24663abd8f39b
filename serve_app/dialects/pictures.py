"""Files by name, as the older services know them: their clients keep names where ours keep ids."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from itertools import count
from typing import Annotated

from fastapi import Path

from deployments.jobs.errors import FileNotFound, JobNotFound, MediaTooLarge
from deployments.jobs.model import Artifact, FileRecord
from deployments.jobs.options import UUID
from deployments.jobs.service import JobService
from serve_app.api.multipart import IncomingFile

PictureName = Annotated[str, Path(description="of an output or an upload", max_length=255, examples=["result.png"])]

YES = frozenset({"true", "1", "yes", "on"})  # what forms say

OF_A_JOB = re.compile(rf"(?P<job_id>{UUID.pattern})_(?P<name>.+)", re.DOTALL)


def file_name_of(job_id: str, artifact: Artifact) -> str:
    """Return the name of an output that no other output has."""
    return artifact.name if artifact.name.startswith(job_id) else f"{job_id}_{artifact.name}"


async def find_picture(service: JobService, name: str, tenant: str, *, uploads_first: bool = False) -> FileRecord:
    """Return the newest file of a name: an output, or an upload.

    Raises:
        FileNotFound: there is none. A name is looked up in the job store and never becomes a path.
    """
    try:
        return await service.find_file(name, tenant=tenant, uploads_first=uploads_first)
    except FileNotFound:
        return await _output_of_job(service, name, tenant)


async def _output_of_job(service: JobService, name: str, tenant: str) -> FileRecord:
    """Find what :func:`file_name_of` has named."""
    found = OF_A_JOB.fullmatch(name)
    if found is None:
        raise FileNotFound(name)
    try:
        job = await service.get(found["job_id"], tenant=tenant)
    except JobNotFound:
        raise FileNotFound(name) from None
    for artifact in job.outputs:
        if artifact.name == found["name"]:
            return await service.get_file(artifact.file_id, tenant=tenant)
    raise FileNotFound(name)


async def store_picture(service: JobService, tenant: str, incoming: IncomingFile, *, overwrite: bool = False) -> FileRecord:
    """Publish an upload; the newest file of a name is the one that the name means.

    Args:
        service: of files.
        tenant: whose.
        incoming: the form. Its field ``overwrite`` decides, which may come after the file.
        overwrite: what a form without that field means. Without overwriting, a name that another content has gets a number,
            as ComfyUI's own uploads do: ``name (1).png``.
    """

    async def rename(name: str, sha256: str) -> str:
        asked = incoming.fields.get("overwrite")
        replace = overwrite if asked is None else asked.strip().lower() in YES
        return name if replace else await _free_name(service, tenant, name, sha256)

    # Not as the form declares it, which a browser reads off the name: a JPEG called x.png is common, and those services took it.
    return await service.create_file(incoming.name, None, incoming.chunks, tenant=tenant, rename=rename)


async def _free_name(service: JobService, tenant: str, name: str, sha256: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    for n in count(1):
        if not await _is_taken(service, tenant, name, sha256):
            break
        name = f"{stem} ({n}){dot}{suffix}" if dot else f"{suffix} ({n})"
    return name


async def _is_taken(service: JobService, tenant: str, name: str, sha256: str) -> bool:
    try:
        return (await service.find_file(name, tenant=tenant, uploads_first=True)).sha256 != sha256
    except FileNotFound:
        return False


async def read_whole(chunks: AsyncIterator[bytes], max_bytes: int) -> bytes:
    """Read a stream into memory.

    Raises:
        MediaTooLarge: longer than ``max_bytes``.
    """
    data = bytearray()
    async for chunk in chunks:
        data += chunk
        if len(data) > max_bytes:
            raise MediaTooLarge(f"the file has more than {max_bytes // 2**20} MiB")
    return bytes(data)
