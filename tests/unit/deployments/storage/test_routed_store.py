"""Several stores as one."""

from __future__ import annotations

import hashlib

import pytest
from pydantic import ValidationError

from deployments.jobs.errors import FileNotFound, Unavailable, UploadFailed
from deployments.jobs.ports import PART_BYTES
from deployments.storage.factory import StorageConfig, build_object_store
from deployments.storage.local import LocalStore
from deployments.storage.routed import RoutedStore
from deployments.storage.upload import upload_file

KEY, ROUTED = "artifacts/t/j/1/a.png", "@gcs/artifacts/t/j/1/a.png"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def first(tmp_path):
    return LocalStore(tmp_path / "first")


@pytest.fixture
def other(tmp_path):
    return LocalStore(tmp_path / "other")


@pytest.fixture
def store(first, other):
    return RoutedStore(first, {"gcs": other})


async def content(store, key, *bounds):
    return b"".join([chunk async for chunk in store.read(key, *bounds)])


async def test_the_key_says_where_an_object_lies(store, first, other):
    for key, data in ((KEY, b"here"), (ROUTED, b"there")):
        stored = await store.put(key, "image/png", data, sha256(data))
        assert (stored.key, stored.uri.partition("://")[2]) == (key, key)
        assert (await content(store, key), await store.size(key)) == (data, len(data))
    assert (await content(first, KEY), await content(other, KEY)) == (b"here", b"there")
    assert await content(store, ROUTED, 1, 3) == b"he"
    await store.delete(ROUTED)
    with pytest.raises(FileNotFound):
        await store.size(ROUTED)
    assert await content(store, KEY) == b"here"


async def test_parts_go_where_the_key_says(store, other, tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(bytes(range(256)) * (PART_BYTES // 128))
    stored = await upload_file(store, path, "@gcs/artifacts/film.mp4", "video/mp4")
    assert stored.key == "@gcs/artifacts/film.mp4"
    assert await content(other, "artifacts/film.mp4") == path.read_bytes()
    token = await store.begin("@gcs/artifacts/x", "video/mp4")
    await store.put_part(token, 0, b"x")
    await store.abort(token)
    with pytest.raises(UploadFailed):
        await store.complete(token, 1, sha256(b"x"))


async def test_copies_stay_in_one_store(store):
    await store.put(KEY, "image/png", b"here", sha256(b"here"))
    await store.copy(KEY, "artifacts/b.png", "image/png")
    assert await content(store, "artifacts/b.png") == b"here"
    with pytest.raises(UploadFailed, match="within one store"):
        await store.copy(KEY, ROUTED, "image/png")


@pytest.mark.parametrize("key", ["@s3/artifacts/a.png", "@/a", "@../a"])
async def test_a_store_that_is_not_offered_has_nothing(store, key):
    for call in (store.size(key), store.put(key, "image/png", b"", sha256(b"")), store.begin(key, "image/png"), content(store, key)):
        with pytest.raises(FileNotFound):
            await call


async def test_all_stores_are_the_identity(store, first, other, tmp_path):
    identity = await store.check()
    assert await RoutedStore(first, {"gcs": other}).check(identity) == identity
    with pytest.raises(Unavailable):
        await RoutedStore(first, {"gcs": LocalStore(tmp_path / "third")}).check(identity)
    assert await store.sweep(0) == 0


def test_the_settings_say_which_there_are(tmp_path):
    assert isinstance(build_object_store(StorageConfig(root=tmp_path)), LocalStore)
    config = StorageConfig(root=tmp_path, also={"local", "gcs"}, gcs={"bucket": "b"})
    assert config.uses == {"local", "gcs"}
    routed = build_object_store(config)
    assert isinstance(routed, RoutedStore)
    assert routed._others["local"] is routed._first
    with pytest.raises(ValidationError, match="GCS_BUCKET_NAME"):
        StorageConfig(also={"gcs"})
    with pytest.raises(ValidationError, match="share one setting"):
        StorageConfig(provider="s3", also={"r2"}, s3={"bucket": "b"})
    assert StorageConfig(also={"cf_images"}, cf_images={"account_id": "a"}, beside="local").uses == {"local", "cf_images"}
