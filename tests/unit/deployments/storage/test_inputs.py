import asyncio
import hashlib
import io
import os
from pathlib import Path

import pytest
from PIL import Image

from deployments.jobs.errors import FetchFailed, FileNotFound, InvalidInput, MediaTypeMismatch, UnsupportedMedia
from deployments.jobs.model import FileRecord
from deployments.storage.incoming import FetchedFile
from deployments.storage.inputs import InputCache, InputCacheConfig
from deployments.storage.sweep import Swept


def png(shade):
    buffer = io.BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


PNG = png(1)
FILE_ID = "0b0f7a35-7c3e-4c67-8f0f-6a3b0f9f1c11"


class FakeSources:
    def __init__(self):
        self.bodies, self.etags = {}, {}
        self.fetched, self.asked = [], []

    async def fetch(self, url, directory, etag=None):
        self.asked.append((url, etag))
        await asyncio.sleep(0)
        body = self.bodies[url]
        if etag and etag == self.etags.get(url):
            return None
        self.fetched.append(url)
        path = Path(directory) / f"fetch-{len(self.fetched)}"
        path.write_bytes(body)
        return FetchedFile(path, "image/png", hashlib.sha256(body).hexdigest(), len(body), self.etags.get(url))


class FakeStore:
    def __init__(self):
        self.records = {}

    async def get_file(self, tenant, file_id):
        record = self.records.get((tenant, file_id))
        if record is None:
            raise FileNotFound(file_id)
        return record


class FakeReader:
    def __init__(self):
        self.objects = {}
        self.reads = 0

    async def size(self, key):
        return len(self.objects[key])

    async def read(self, key, start=0, end=None):
        self.reads += 1
        for at in range(0, len(self.objects[key]), 100):
            yield self.objects[key][at : at + 100]


class World:
    def __init__(self, root, job):
        self.root, self.job = root, job
        self.sources, self.store, self.reader = FakeSources(), FakeStore(), FakeReader()

    def cache(self, **config):
        return InputCache(InputCacheConfig(root=self.root, **config), sources=self.sources, store=self.store, reader=self.reader)

    def add_file(self, body=PNG, sha256=None):
        self.reader.objects["uploads/a"] = body
        digest = sha256 or hashlib.sha256(body).hexdigest()
        self.store.records["default", FILE_ID] = FileRecord(FILE_ID, "default", "uploads/a", "a.png", "image/png", len(body), digest, 0.0)

    def add_url(self, url, body):
        self.sources.bodies[url] = body
        return {"url": url}

    def kept(self):
        return {path.read_bytes() for path in (self.root / "objects").iterdir()}


@pytest.fixture
def world(tmp_path):
    (tmp_path / "job").mkdir()
    return World(tmp_path / "inputs", tmp_path / "job")


async def test_materialise_brings_a_stored_file_once(world):
    world.add_file()
    cache = world.cache()

    media = await cache.materialise("default", {"file_id": FILE_ID}, world.job)

    assert media.path.read_bytes() == PNG
    assert (media.media_type, media.sha256, media.size_bytes) == ("image/png", hashlib.sha256(PNG).hexdigest(), len(PNG))
    assert not media.path.stat().st_mode & 0o222
    assert await world.cache().materialise("default", {"file_id": FILE_ID}, world.job) == media
    assert world.reader.reads == 1


async def test_a_file_of_one_job_is_neither_asked_for_nor_kept(world):
    world.add_file()
    world.store.records.clear()
    reference = {"file_id": FILE_ID, "key": "uploads/a", "sha256": hashlib.sha256(PNG).hexdigest()}
    media = await world.cache().materialise("default", reference, world.job)
    assert (media.path.read_bytes(), media.sha256, world.kept()) == (PNG, reference["sha256"], set())
    with pytest.raises(FetchFailed, match="damaged"):
        await world.cache().materialise("default", reference | {"sha256": "0" * 64}, world.job)


async def test_materialise_asks_the_store_each_time(world):
    world.add_file()
    cache = world.cache()
    await cache.materialise("default", {"file_id": FILE_ID}, world.job)
    with pytest.raises(FileNotFound):  # cached bytes are no permission
        await cache.materialise("stranger", {"file_id": FILE_ID}, world.job)


async def test_materialise_refuses_damaged_bytes(world):
    world.add_file(sha256="0" * 64)
    with pytest.raises(FetchFailed, match="damaged"):
        await world.cache().materialise("default", {"file_id": FILE_ID}, world.job)
    assert world.kept() == set()
    assert list((world.root / "incoming").iterdir()) == []


async def test_materialise_fetches_a_url_once_for_all_who_wait(world):
    reference = world.add_url("https://example.com/a?sig=hush", PNG)
    caches = [world.cache() for _ in range(4)]  # as in four processes: nothing is shared but the folder

    media = await asyncio.gather(*(cache.materialise("default", reference, world.job) for cache in caches))

    assert len(world.sources.fetched) == 1
    assert len({item.path for item in media}) == 1
    assert not any(b"hush" in path.read_bytes() or "hush" in path.name for path in world.root.rglob("*") if path.is_file())


async def test_materialise_fetches_a_url_again_when_it_is_no_longer_fresh(world):
    reference = world.add_url("https://example.com/a", PNG)
    cache = world.cache(url_fresh_s=60)
    await cache.materialise("default", reference, world.job)
    world.sources.bodies[reference["url"]] = png(2)
    assert (await cache.materialise("default", reference, world.job)).sha256 == hashlib.sha256(PNG).hexdigest()

    (entry,) = (world.root / "urls").iterdir()
    os.utime(entry, (0, 0))

    assert (await cache.materialise("default", reference, world.job)).sha256 == hashlib.sha256(png(2)).hexdigest()


async def test_a_url_that_still_holds_the_same_is_not_downloaded_again(world):
    reference = world.add_url("https://a.test/x", PNG)
    world.sources.etags[reference["url"]] = '"v1"'
    cache = world.cache(url_fresh_s=0)
    first = await cache.materialise("default", reference, world.job)
    assert await world.cache(url_fresh_s=0).materialise("default", reference, world.job) == first
    assert (len(world.sources.fetched), world.sources.asked[-1]) == (1, (reference["url"], '"v1"'))
    world.sources.bodies[reference["url"]], world.sources.etags[reference["url"]] = png(2), '"v2"'
    assert (await cache.materialise("default", reference, world.job)).path.read_bytes() == png(2)
    assert len(world.sources.fetched) == 2


async def test_a_url_whose_file_was_evicted_is_downloaded_whole(world):
    reference = world.add_url("https://a.test/x", PNG)
    world.sources.etags[reference["url"]] = '"v1"'
    cache = world.cache(url_fresh_s=0)
    await cache.materialise("default", reference, world.job)
    for path in (world.root / "objects").iterdir():
        path.unlink()
    (world.job / hashlib.sha256(PNG).hexdigest()).unlink()
    assert (await cache.materialise("default", reference, world.job)).path.read_bytes() == PNG
    assert world.sources.asked[-1] == (reference["url"], None)


async def test_a_url_whose_file_is_evicted_while_the_server_is_asked(world):
    reference = world.add_url("https://a.test/x", PNG)
    world.sources.etags[reference["url"]] = '"v1"'
    cache = world.cache(url_fresh_s=0)
    await cache.materialise("default", reference, world.job)
    fetch = world.sources.fetch

    async def evicting(url, directory, etag=None):
        for path in (world.root / "objects").iterdir():
            path.unlink()
        return await fetch(url, directory, etag)

    world.sources.fetch = evicting
    assert (await cache.materialise("default", reference, world.job)).path.read_bytes() == PNG
    assert [etag for _, etag in world.sources.asked] == [None, '"v1"', None]


async def test_a_failed_fetch_leaves_nothing_locked(world):
    class Broken(FakeSources):
        async def fetch(self, url, directory, etag=None):
            raise FetchFailed("no answer")

    reference = world.add_url("https://example.com/a", PNG)
    working, world.sources = world.sources, Broken()
    with pytest.raises(FetchFailed):
        await world.cache().materialise("default", reference, world.job)
    world.sources = working
    assert (await world.cache().materialise("default", reference, world.job)).size_bytes == len(PNG)


@pytest.mark.parametrize("declared", [None, "image/png", "IMAGE/PNG", "image/png; x=y", "application/octet-stream"])
async def test_materialise_takes_a_declared_type_that_agrees(world, declared):
    world.add_file()
    assert (await world.cache().materialise("default", {"file_id": FILE_ID, "media_type": declared}, world.job)).media_type == "image/png"


async def test_materialise_refuses_a_declared_type_that_disagrees(world):
    world.add_file()
    with pytest.raises(MediaTypeMismatch) as caught:
        await world.cache().materialise("default", {"file_id": FILE_ID, "media_type": "video/mp4"}, world.job)
    assert (caught.value.declared, caught.value.found) == ("video/mp4", "image/png")


async def test_materialise_refuses_what_is_no_media(world):
    world.add_file(b"hello, this is text")
    with pytest.raises(UnsupportedMedia):
        await world.cache().materialise("default", {"file_id": FILE_ID}, world.job)
    with pytest.raises(InvalidInput):
        await world.cache().materialise("default", {"base64": "aGVsbG8="}, world.job)


async def test_the_file_unused_for_longest_leaves_first(world):
    cache = world.cache(max_bytes=2 * len(PNG) + 1)
    references = [world.add_url(f"https://example.com/{n}", png(n)) for n in (1, 2, 3)]
    for age, reference in zip((300, 200), references, strict=False):
        media = await cache.materialise("default", reference, world.job)
        used = media.path.stat().st_mtime - age
        os.utime(media.path, (used, used))
    await cache.materialise("default", references[0], world.job)  # used again: the second is now the oldest

    await cache.materialise("default", references[2], world.job)

    assert world.kept() == {png(1), png(3)}


async def test_an_evicted_file_stays_with_the_job_that_got_it(world):
    cache = world.cache(max_bytes=1)
    first = await cache.materialise("default", world.add_url("https://example.com/1", png(1)), world.job)
    await cache.materialise("default", world.add_url("https://example.com/2", png(2)), world.job)
    assert world.kept() == set()
    assert first.path.read_bytes() == png(1)


async def test_one_file_in_two_roles_is_linked_once(world):
    reference = world.add_url("https://example.com/1", PNG)
    cache = world.cache()
    first = await cache.materialise("default", reference, world.job)
    again = await cache.materialise("default", reference, world.job)
    assert first == again
    assert len(list(world.job.iterdir())) == 1


async def test_downloads_of_killed_workers_are_swept(world):
    cache = world.cache()
    orphan = world.root / "incoming" / "fetch-dead"
    orphan.write_bytes(b"half")
    os.utime(orphan, (0, 0))
    under_way = world.root / "incoming" / "fetch-living"
    under_way.write_bytes(b"half")
    assert cache.remove_abandoned(3600.0) == Swept(1, 4)
    assert (orphan.exists(), under_way.exists()) == (False, True)
