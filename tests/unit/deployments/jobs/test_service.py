"""The job service over a real store and a real folder of objects."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deployments.jobs.capabilities import Capabilities, EngineInfo, LimitsInfo, MediaFormats
from deployments.jobs.errors import (
    ConsentRequired,
    FileNotFound,
    IdempotencyConflict,
    InvalidInput,
    JobExists,
    JobNotFound,
    JobNotTerminal,
    MediaTooLarge,
    MediaTypeMismatch,
    SigningNotConfigured,
    StoreUnavailable,
    UnsupportedMedia,
    UploadFailed,
    UrlNotAllowed,
)
from deployments.jobs.feed import EventFeed
from deployments.jobs.intake import IntakeLimits, MediaIntake, to_display_name
from deployments.jobs.model import Artifact, JobQuery, JobStatus, Preview
from deployments.jobs.options import Consent, JobOptions
from deployments.jobs.ports import Plan
from deployments.jobs.preview_feed import PreviewFeed
from deployments.jobs.service import JobService, ServiceConfig
from deployments.jobs.spec import ComfySpec, FaceSwapSpec, JobSpec, OutputOptions
from deployments.storage.local import LocalStore
from deployments.storage.upload import upload_stream

PNG = b"\x89PNG\r\n\x1a\n" + bytes(2000)
URL = "https://example.com/a.png"
CAPABILITIES = Capabilities(
    engines=(EngineInfo(name="mesh", kind="faceswap", pool="faceswap"), EngineInfo(name="bridge", kind="comfyui", pool="comfyui")),
    formats=MediaFormats(read=(), write=()),
    limits=LimitsInfo(upload_bytes=1, inline_bytes=1, body_bytes=1, wait_s=1),
)
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture
def objects(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "objects")


def refuse_private(url: str) -> None:
    if "localhost" in url:
        raise UrlNotAllowed("not a public address")


class FixedPlanner:
    """Plans every workflow alike."""

    async def plan(self, tenant: str, spec: JobSpec) -> Plan:
        return Plan({"kind": "comfyui", "graph": {}, "tenant": tenant, "asked": spec.workflow}, "tags:sdxl", 77.0, 1.5)


async def describe() -> Capabilities:
    return CAPABILITIES


@pytest.fixture
async def service(store, objects, clock) -> AsyncIterator[JobService]:
    feed = EventFeed(store, poll_s=0.05)
    feed.start()
    previews = PreviewFeed(store, poll_s=0.05)
    previews.start()
    intake = MediaIntake(store, objects, upload_stream, refuse_private, IntakeLimits(upload_bytes=10_000, inline_bytes=5_000), clock)
    yield JobService(
        store=store,
        feed=feed,
        previews=previews,
        intake=intake,
        uploader=objects,
        reader=objects,
        capabilities=describe,
        planners={"comfyui": FixedPlanner()},
        config=ServiceConfig(max_wait_s=5, max_watched=3),
    )
    await previews.close()
    await feed.close()


def spec(source: object = URL, target: object = URL) -> FaceSwapSpec:
    return FaceSwapSpec.model_validate({"source": source, "target": target})


def inline(data: bytes = PNG, media_type: str = "image/png") -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode(), "media_type": media_type}


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(service, record, start=0, end=None) -> bytes:
    return b"".join([chunk async for chunk in service.read_file(record, start, end)])


async def finish(store, claim, *outputs: Artifact):
    job = await store.claim(claim())
    await store.finish(job.id, job.attempt, outputs, {"computing": 1.0})
    return job


async def test_submit_stores_references_and_options(service):
    made = FaceSwapSpec(source=spec().source, target=spec().target, output=OutputOptions(resolution="64x64"))
    submission = await service.submit(made, JobOptions(priority=4, labels={"a": "b"}, timeout_s=9, max_attempts=1))
    job = submission.job
    assert submission.created
    assert job.spec == {"kind": "faceswap", "source": {"url": URL}, "target": {"url": URL}, "output": {"resolution": "64x64"}}
    assert (job.pool, job.priority, job.labels, job.timeout_s, job.max_attempts) == ("faceswap", 4, {"a": "b"}, 9, 1)


async def test_submit_swaps_inline_media_for_one_file_however_often_it_is_sent(service):
    first = await service.submit(spec(source=inline()), idempotency_key="k")
    again = await service.submit(spec(source=inline()), idempotency_key="k")
    assert (again.job.id, again.created) == (first.job.id, False)
    record = await service.get_file(first.job.spec["source"]["file_id"])
    assert (record.media_type, await read(service, record)) == ("image/png", PNG)


async def test_submit_finds_the_job_of_a_client_made_id(service):
    options = JobOptions(id=str(uuid.uuid4()))
    first = await service.submit(spec(), options)
    again = await service.submit(spec(), options)
    assert (first.job.id, again.job.id, again.created) == (options.id, options.id, False)
    with pytest.raises(JobExists):
        await service.submit(spec(target=URL + "?2"), options)


async def test_submit_refuses_an_idempotency_key_of_another_request(service):
    await service.submit(spec(), idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        await service.submit(spec(), JobOptions(priority=1), idempotency_key="k")


async def test_submit_refuses_an_idempotency_key_with_another_client_made_id(service):
    first = await service.submit(spec(), JobOptions(id=str(uuid.uuid4())), idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        await service.submit(spec(), JobOptions(id=str(uuid.uuid4())), idempotency_key="k")
    other = await service.submit(spec(), JobOptions(id=str(uuid.uuid4())), idempotency_key="k2")
    with pytest.raises(IdempotencyConflict):
        await service.submit(spec(), JobOptions(id=other.job.id), idempotency_key="k")
    assert (await service.submit(spec(), JobOptions(id=first.job.id), idempotency_key="k")).job.id == first.job.id


@pytest.mark.parametrize("options", [JobOptions(), JobOptions(id="5d1c1f0e-58c2-4d0a-9f8b-0d8a7a4c9b11")])
async def test_submit_finds_the_first_job_although_its_source_is_gone(service, store, monkeypatch, options):
    async def gone(*_):
        raise FileNotFound(UNKNOWN)

    key = None if options.id else "k"
    record = await service.create_file("a.png", None, stream(PNG))
    sent = spec(source={"file_id": record.id}, target=inline())
    first = await service.submit(sent, options, idempotency_key=key)
    monkeypatch.setattr(store, "get_file", gone)
    monkeypatch.setattr(service._intake, "_check_url", gone)
    again = await service.submit(sent, options, idempotency_key=key)
    assert (again.job.id, again.created) == (first.job.id, False)
    with pytest.raises(FileNotFound):
        await service.submit(sent)


async def test_submit_tells_inline_media_apart(service):
    await service.submit(spec(source=inline()), idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        await service.submit(spec(source=inline(PNG + b"x")), idempotency_key="k")


async def test_submit_makes_one_job_of_two_equal_requests_at_once(service):
    both = await asyncio.gather(*(service.submit(spec(), idempotency_key="k") for _ in range(2)))
    assert len({submission.job.id for submission in both}) == 1
    assert sorted(submission.created for submission in both) == [False, True]


async def test_submit_stores_what_the_planner_of_its_kind_makes_of_a_request(service):
    job = (await service.submit(ComfySpec(workflow="blur"), JobOptions(timeout_s=9), tenant="t")).job
    assert job.spec == {"kind": "comfyui", "graph": {}, "tenant": "t", "asked": "blur"}
    assert (job.kind, job.pool, job.requires, job.timeout_s, job.estimate_s) == ("comfyui", "comfyui", "tags:sdxl", 77.0, 1.5)


async def test_submit_checks_a_new_request_and_no_repeat(service):
    async def refuse() -> None:
        raise InvalidInput("no")

    first = await service.submit(ComfySpec(workflow="blur"), idempotency_key="k")
    again = await service.submit(ComfySpec(workflow="blur"), idempotency_key="k", check=refuse)
    assert (again.job.id, again.created) == (first.job.id, False)
    with pytest.raises(InvalidInput, match="no"):
        await service.submit(ComfySpec(workflow="blur"), check=refuse)
    assert len((await service.list_jobs(JobQuery())).jobs) == 1


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256])
async def test_submit_refuses_a_malformed_idempotency_key(service, key):
    with pytest.raises(InvalidInput, match="Idempotency-Key"):
        await service.submit(spec(), idempotency_key=key)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("http://localhost/a.png", UrlNotAllowed),
        ({"file_id": UNKNOWN}, FileNotFound),
        ({"base64": "%%%%", "media_type": "image/png"}, InvalidInput),
        (inline(media_type="image/jpeg"), MediaTypeMismatch),
        (inline(b"hello hello"), UnsupportedMedia),
        (inline(PNG + bytes(5000)), MediaTooLarge),
    ],
)
async def test_submit_refuses_references_that_cannot_be_used(service, source, error):
    with pytest.raises(error):
        await service.submit(spec(source=source))
    assert (await service.list_jobs(JobQuery())).jobs == ()


async def test_submit_refuses_a_file_declared_as_another_type(service):
    record = await service.create_file("a.png", None, stream(PNG))
    with pytest.raises(MediaTypeMismatch):
        await service.submit(spec(source={"file_id": record.id, "media_type": "video/mp4"}))


async def test_get_waits_for_the_end(service, store, claim):
    job = (await service.submit(spec())).job
    waiting = asyncio.create_task(service.get(job.id, wait_s=5))
    await asyncio.sleep(0)
    await finish(store, claim)
    assert (await waiting).status is JobStatus.SUCCEEDED


async def test_get_gives_up_after_the_wait(service):
    job = (await service.submit(spec())).job
    assert (await service.get(job.id, wait_s=0.02)).status is JobStatus.QUEUED


@pytest.mark.parametrize("job_id", ["", "x", "../../etc", UNKNOWN, "\x00"])
async def test_get_refuses_what_is_no_job(service, job_id):
    with pytest.raises(JobNotFound):
        await service.get(job_id)


async def test_retry_makes_a_new_job_that_names_the_old_one(service):
    job = (await service.submit(spec(), JobOptions(priority=3, labels={"a": "b"}))).job
    with pytest.raises(JobNotTerminal):
        await service.retry(job.id)
    await service.cancel(job.id)
    again = (await service.retry(job.id)).job
    assert again.id != job.id
    assert (again.retry_of, again.spec, again.priority, again.labels) == (job.id, job.spec, 3, {"a": "b"})
    assert again.status is JobStatus.QUEUED


async def test_delete_removes_the_job_and_the_bytes_of_its_outputs(service, store, objects, claim):
    job = (await service.submit(spec())).job
    stored = await upload_stream(objects, stream(PNG), f"artifacts/default/{job.id}/1/r.png", "image/png")
    output = Artifact(str(uuid.uuid4()), "r.png", "image/png", stored.uri, stored.size_bytes, stored.sha256)
    await finish(store, claim, output)
    record = await service.get_file(output.file_id)
    assert await read(service, record, 0, 8) == PNG[:8]
    await service.delete(job.id)
    with pytest.raises(JobNotFound):
        await service.get(job.id)
    with pytest.raises(FileNotFound):
        await service.get_file(output.file_id)
    with pytest.raises(FileNotFound):
        await objects.size(record.key)


async def test_delete_keeps_the_job_while_its_bytes_cannot_be_removed(service, store, objects, claim, monkeypatch):
    async def away(key: str) -> None:
        raise UploadFailed("away")

    job = (await service.submit(spec())).job
    await finish(store, claim, Artifact(str(uuid.uuid4()), "r.png", "image/png", "local://artifacts/r.png", 3, "0" * 64))
    with monkeypatch.context() as patch:
        patch.setattr(objects, "delete", away)
        with pytest.raises(UploadFailed):
            await service.delete(job.id)
    assert (await service.get(job.id)).outputs
    await service.delete(job.id)
    with pytest.raises(JobNotFound):
        await service.get(job.id)


async def test_watch_ends_with_the_job(service):
    job = (await service.submit(spec())).job
    await service.cancel(job.id)
    async with asyncio.timeout(5):
        assert [e.status async for e in service.watch([job.id])] == [JobStatus.QUEUED, JobStatus.CANCELLED]


async def test_subscribe_refuses_too_many_jobs(service):
    with pytest.raises(InvalidInput):
        service.subscribe([str(uuid.uuid4()) for _ in range(4)])


async def test_subscribe_with_previews_brings_both(service, store, claim):
    job = (await service.submit(spec())).job
    await store.claim(claim())
    async with asyncio.timeout(5), service.subscribe_with_previews([job.id]) as viewing:
        assert [(await anext(viewing)).status for _ in range(2)] == [JobStatus.QUEUED, JobStatus.RUNNING]
        while not await store.put_preview(Preview(job.id, 1, 0, "image/jpeg", b"jpeg", "3")):
            await asyncio.sleep(0.005)
        shown = await anext(viewing)
    assert (shown.data, shown.comfy_node) == (b"jpeg", "3")


@pytest.mark.parametrize(
    ("job_ids", "tenant", "error"), [(None, "default", InvalidInput), ([UNKNOWN], "default", JobNotFound), ([], "other", JobNotFound)]
)
async def test_subscribe_with_previews_is_of_named_jobs_of_the_tenant(service, job_ids, tenant, error):
    job = (await service.submit(spec())).job
    with pytest.raises(error):
        async with service.subscribe_with_previews([job.id] if job_ids == [] else job_ids, tenant=tenant):
            pytest.fail("was let in")


async def test_create_file_keeps_the_name_that_it_is_given_at_the_end(service):
    async def rename(name, sha256):
        return f"{sha256[:4]} {name}"

    record = await service.create_file("/x/me.png", None, stream(PNG), rename=rename)
    assert record.name == f"{record.sha256[:4]} me.png"
    assert await service.find_file(record.name) == record


@pytest.mark.parametrize("name", ["", "me.png", "../me.png", "a/me.png", "me\x00.png", "x" * 300])
async def test_find_file_refuses_what_no_file_is_called(service, name):
    await service.create_file("other.png", None, stream(PNG))
    with pytest.raises(FileNotFound):
        await service.find_file(name)


async def test_create_file_keeps_type_name_size_and_hash(service):
    record = await service.create_file("C:\\Pictures\\me.png", "application/octet-stream", stream(PNG[:3], PNG[3:1000], PNG[1000:]))
    assert (record.name, record.media_type, record.size_bytes) == ("me.png", "image/png", len(PNG))
    assert record == await service.get_file(record.id)
    assert await read(service, record, 1, 4) == b"PNG"


@pytest.mark.parametrize(
    ("declared", "chunks", "error"),
    [
        ("image/jpeg", [PNG], MediaTypeMismatch),
        (None, [b"what is this?"], UnsupportedMedia),
        (None, [], InvalidInput),
        (None, [PNG] * 6, MediaTooLarge),
    ],
)
async def test_create_file_refuses_and_leaves_nothing(service, tmp_path, declared, chunks, error):
    with pytest.raises(error):
        await service.create_file("a", declared, stream(*chunks))
    assert [p for p in (tmp_path / "objects").rglob("*") if p.is_file()] == []


async def test_create_file_reports_a_store_that_is_away(service, store, monkeypatch):
    async def away(record):
        raise StoreUnavailable("away")

    monkeypatch.setattr(store, "add_file", away)
    with pytest.raises(StoreUnavailable):
        await service.create_file("a.png", None, stream(PNG))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.png", "a.png"),
        ("../../etc/passwd", "passwd"),
        ("a\r\nb\x00.png", "ab.png"),
        ("", "file"),
        ("x" * 300, "x" * 200),
        ("gnp.\u202eexe", "gnp.exe"),
    ],
)
def test_to_display_name(name, shown):
    assert to_display_name(name) == shown


async def test_ready_follows_the_feed(service):
    async with asyncio.timeout(5):
        while not service.ready():
            await asyncio.sleep(0.01)
    assert await service.capabilities() == CAPABILITIES
    assert (await service.stats()).by_status["queued"] == 0
    assert await service.scaling() == ()


CONSENT = Consent(who="A. Example", reference="contract 2026-117")


async def test_submit_keeps_consent_with_the_job_and_with_its_retry(service, store, claim):
    job = (await service.submit(spec(), JobOptions(consent=CONSENT))).job
    await finish(store, claim)
    again = (await service.retry(job.id)).job
    assert job.spec["consent"] == again.spec["consent"] == {"who": "A. Example", "reference": "contract 2026-117"}


async def test_submit_refuses_a_face_job_without_consent_where_it_is_asked_for(service):
    service._config = ServiceConfig(require_consent=True)
    with pytest.raises(ConsentRequired):
        await service.submit(spec())
    await service.submit(spec(), JobOptions(consent=CONSENT))
    await service.submit(ComfySpec(workflow="text-to-image"))


async def test_submit_refuses_a_signature_that_cannot_be_made(service):
    with pytest.raises(SigningNotConfigured):
        await service.submit(spec(), JobOptions(c2pa=True))
    service._config = ServiceConfig(can_sign=True)
    assert (await service.submit(spec(), JobOptions(c2pa=True))).job.spec["c2pa"] is True
