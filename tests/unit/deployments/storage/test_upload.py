import asyncio
import hashlib
import pickle
from collections import Counter

import pytest
import stamina

from deployments.jobs.errors import InvalidInput, Unavailable, UploadFailed
from deployments.jobs.ports import PART_BYTES, StoredObject, UploadToken
from deployments.storage import upload
from deployments.storage.upload import ATTEMPTS, PARTS_IN_FLIGHT, upload_file, upload_stream

TOKEN = UploadToken("key", "id", "video/mp4")


@pytest.fixture(autouse=True)
def no_pauses():
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


class FakeUploader:
    """Keeps parts in memory and fails as often as it is told."""

    def __init__(self, failures=()):
        self.failures = Counter(failures)  # part number or method name -> how often it fails
        self.parts = {}
        self.in_flight = 0
        self.full = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.aborted = 0

    def _fail(self, what):
        if self.failures[what] > 0:
            self.failures[what] -= 1
            raise UploadFailed(f"{what} is down")

    async def begin(self, key, media_type):
        self._fail("begin")
        return UploadToken(key, "id", media_type)

    async def put_part(self, token, number, data):
        self.in_flight += 1
        if self.in_flight == PARTS_IN_FLIGHT:
            self.full.set()
        try:
            await self.gate.wait()
        finally:
            self.in_flight -= 1
        self._fail(number)
        self.parts[number] = data

    async def complete(self, token, parts, sha256):
        self._fail("complete")
        assert sorted(self.parts) == list(range(parts))
        data = b"".join(self.parts[n] for n in range(parts))
        assert hashlib.sha256(data).hexdigest() == sha256
        return StoredObject(token.key, f"fake://{token.key}", len(data), sha256)

    async def put(self, key, media_type, data, sha256):
        self.full.set()
        await self.gate.wait()
        self._fail("put")
        assert hashlib.sha256(data).hexdigest() == sha256
        created = self.parts.get(0) != data
        self.parts[0] = data
        return StoredObject(key, f"fake://{key}", len(data), sha256, created)

    async def abort(self, token):
        self.aborted += 1
        self._fail("abort")

    async def delete(self, key):
        self.parts.clear()


async def chunks(sizes):
    for n, size in enumerate(sizes):
        yield bytes([n % 256]) * size


@pytest.mark.parametrize(
    ("size", "parts"),
    [(0, [0]), (5, [5]), (PART_BYTES, [PART_BYTES]), (PART_BYTES + 1, [PART_BYTES, 1]), (3 * PART_BYTES, [PART_BYTES] * 3)],
)
async def test_upload_file_sends_equal_parts(tmp_path, size, parts):
    (tmp_path / "file").write_bytes(bytes(size))
    uploader = FakeUploader()

    stored = await upload_file(uploader, tmp_path / "file", "a/key", "video/mp4")

    assert [len(uploader.parts[n]) for n in sorted(uploader.parts)] == parts
    assert stored == StoredObject("a/key", "fake://a/key", size, hashlib.sha256(bytes(size)).hexdigest())
    assert uploader.aborted == 0


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([], [0]),
        ([3, 4], [7]),
        ([PART_BYTES - 1, 2], [PART_BYTES, 1]),
        ([2 * PART_BYTES + 5], [PART_BYTES, PART_BYTES, 5]),
        ([PART_BYTES], [PART_BYTES]),
    ],
)
async def test_upload_stream_cuts_chunks_into_equal_parts(sizes, parts):
    uploader = FakeUploader()
    stored = await upload_stream(uploader, chunks(sizes), "key", "video/mp4")
    assert [len(uploader.parts[n]) for n in sorted(uploader.parts)] == parts
    assert stored.size_bytes == sum(sizes)


async def test_upload_keeps_few_parts_in_flight():
    uploader = FakeUploader()
    uploader.gate.clear()
    task = asyncio.create_task(upload_stream(uploader, chunks([PART_BYTES] * 9), "key", "video/mp4"))
    await uploader.full.wait()
    for _ in range(100):  # whoever does not wait for a free place sends on now
        await asyncio.sleep(0)
    assert uploader.in_flight == PARTS_IN_FLIGHT

    uploader.gate.set()

    assert (await task).size_bytes == 9 * PART_BYTES


async def test_upload_repeats_what_failed():
    uploader = FakeUploader({"begin": 2, 0: 1, 1: 3, "complete": 2})
    stored = await upload_stream(uploader, chunks([PART_BYTES, 10]), "key", "video/mp4")
    assert stored.size_bytes == PART_BYTES + 10
    assert uploader.aborted == 0


def test_a_store_that_names_a_time_is_given_it():
    asked = [upload._pause(UploadFailed("overloaded", seconds)) for seconds in (None, 0.0, 7.0, 3600.0)]
    assert asked == [True, upload.FIRST_PAUSE_S, 7.0, False], "an hour is for the job's next attempt"
    assert upload._pause(Unavailable("away")) is True
    assert upload._pause(ValueError("no")) is False
    copy = pickle.loads(pickle.dumps(UploadFailed("overloaded", 7.0)))
    assert (str(copy), copy.retry_after_s) == ("overloaded", 7.0)


@pytest.mark.parametrize("what", [1, "complete"])
async def test_upload_gives_up_and_aborts(what):
    uploader = FakeUploader({what: 99, "abort": 1})
    with pytest.raises(UploadFailed, match=f"{what} is down"):
        await upload_stream(uploader, chunks([PART_BYTES] * 6), "key", "video/mp4")
    assert uploader.aborted == 1
    assert uploader.in_flight == 0


async def test_upload_aborts_when_the_stream_breaks():
    async def broken():
        yield bytes(PART_BYTES)
        raise InvalidInput("the client went away")

    uploader = FakeUploader()
    with pytest.raises(InvalidInput, match="went away"):
        await upload_stream(uploader, broken(), "key", "video/mp4")
    assert uploader.aborted == 1


async def test_upload_aborts_when_it_is_cancelled():
    started = asyncio.Event()

    async def endless():
        yield bytes(PART_BYTES)
        started.set()
        await asyncio.Event().wait()

    uploader = FakeUploader()
    task = asyncio.create_task(upload_stream(uploader, endless(), "key", "video/mp4"))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert uploader.aborted == 1


async def test_a_small_file_that_cannot_be_stored_takes_nothing_away(tmp_path):
    (tmp_path / "file").write_bytes(b"small")
    uploader = FakeUploader({"put": 99})
    uploader.parts[0] = b"of another"
    with pytest.raises(UploadFailed, match="put is down"):
        await upload_file(uploader, tmp_path / "file", "key", "video/mp4")
    assert uploader.parts == {0: b"of another"}


@pytest.mark.parametrize(("before", "after"), [({}, {}), ({0: b"small"}, {0: b"small"})], ids=["created", "there before"])
async def test_a_small_file_is_taken_back_when_its_upload_is_cancelled(tmp_path, before, after):
    (tmp_path / "file").write_bytes(b"small")
    uploader = FakeUploader()
    uploader.parts.update(before)
    uploader.gate.clear()
    task = asyncio.create_task(upload_file(uploader, tmp_path / "file", "key", "video/mp4"))
    await uploader.full.wait()
    task.cancel()
    uploader.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert uploader.parts == after
