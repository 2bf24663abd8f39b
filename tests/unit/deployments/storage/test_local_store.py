import asyncio
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.jobs.errors import FileNotFound, InvalidInput, Unavailable, UploadFailed
from deployments.jobs.ports import PART_BYTES, StoredObject
from deployments.storage import local as local_module
from deployments.storage.factory import StorageConfig, build_object_store
from deployments.storage.local import LocalStore

KEY = "artifacts/default/job-1/1/result.mp4"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


async def put(store, key=KEY, parts=(b"one", b"two")):
    token = await store.begin(key, "video/mp4")
    for number, data in enumerate(parts):
        await store.put_part(token, number, data)
    return token, await store.complete(token, len(parts), sha256(b"".join(parts)))


async def content(store, key=KEY, *bounds):
    return b"".join([chunk async for chunk in store.read(key, *bounds)])


async def test_parts_in_any_order_become_one_object(store, root):
    token = await store.begin(KEY, "video/mp4")
    for number in (2, 0, 1, 0):
        await store.put_part(token, number, bytes([number]) * 3)
    assert not (root / "objects").exists()

    stored = await store.complete(token, 3, sha256(b"\0\0\0\1\1\1\2\2\2"))

    assert stored == StoredObject(KEY, f"local://{KEY}", 9, sha256(b"\0\0\0\1\1\1\2\2\2"))
    assert await content(store) == b"\0\0\0\1\1\1\2\2\2"
    assert await store.size(KEY) == 9
    assert list((root / "uploads").iterdir()) == []


async def test_any_process_takes_any_part(store, root):
    token = await store.begin(KEY, "video/mp4")
    await store.put_part(token, 0, b"one")
    other = LocalStore(root)
    await other.put_part(token, 1, b"two")
    assert (await LocalStore(root).complete(token, 2, sha256(b"onetwo"))).size_bytes == 6


async def test_complete_may_be_repeated(store):
    token, stored = await put(store)
    assert await store.complete(token, 2, sha256(b"onetwo")) == stored
    with pytest.raises(UploadFailed):
        await store.complete(token, 2, sha256(b"other"))


async def test_complete_beside_itself_gives_one_object(store):
    token = await store.begin(KEY, "video/mp4")
    await store.put_part(token, 0, b"one")
    first, second = await asyncio.gather(*(store.complete(token, 1, sha256(b"one")) for _ in range(2)), return_exceptions=True)
    assert StoredObject(KEY, f"local://{KEY}", 3, sha256(b"one")) in (first, second)
    assert await content(store) == b"one"


@pytest.mark.parametrize(
    ("numbers", "announced", "digest"), [((0, 2), 2, b"ab"), ((0,), 2, b"a"), ((0, 1, 2), 2, b"ab"), ((0, 1), 2, b"other")]
)
async def test_complete_refuses_what_is_not_whole(store, root, numbers, announced, digest):
    token = await store.begin(KEY, "video/mp4")
    for number in numbers:
        await store.put_part(token, number, b"abc"[number : number + 1])
    with pytest.raises(UploadFailed):
        await store.complete(token, announced, sha256(digest))
    assert not (root / "objects").exists() or not any(path.is_file() for path in (root / "objects").rglob("*"))


@pytest.mark.parametrize(("number", "size"), [(-1, 1), (100_000, 1), (0, PART_BYTES + 1)])
async def test_put_part_refuses_what_is_no_part(store, number, size):
    token = await store.begin(KEY, "video/mp4")
    with pytest.raises(UploadFailed):
        await store.put_part(token, number, bytes(size))


async def test_abort_drops_the_parts_and_later_ones(store, root):
    token = await store.begin(KEY, "video/mp4")
    await store.put_part(token, 0, b"one")
    await store.abort(token)
    await store.abort(token)
    assert list((root / "uploads").iterdir()) == []
    with pytest.raises(UploadFailed, match="aborted"):
        await store.put_part(token, 1, b"two")
    with pytest.raises(UploadFailed, match="aborted"):
        await store.complete(token, 2, sha256(b"onetwo"))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "a/./b",
        "a/.hidden",
        "a\\b",
        "a\0b",
        "a\nb",
        "é",
        "a/",
        "~",
        "x" * 600,
        "a/" + "x" * 201,
    ],
)
async def test_keys_never_leave_the_folder(store, key):
    with pytest.raises(InvalidInput):
        await store.begin(key, "image/png")
    with pytest.raises(InvalidInput):
        await store.delete(key)
    with pytest.raises(InvalidInput):
        await store.size(key)
    with pytest.raises(InvalidInput):
        await content(store, key)


async def test_a_forged_token_never_leaves_the_folder(store):
    token = await store.begin(KEY, "image/png")
    with pytest.raises(UploadFailed):
        await store.put_part(replace(token, upload_id="../objects"), 0, b"x")
    with pytest.raises(InvalidInput):
        await store.complete(replace(token, key="../../x"), 0, sha256(b""))


async def test_delete_removes_the_object_and_its_empty_folders(store, root):
    await put(store)
    await put(store, "artifacts/default/job-2/1/result.mp4")
    await store.delete(KEY)
    await store.delete(KEY)
    assert [path.name for path in (root / "objects/artifacts/default").iterdir()] == ["job-2"]
    with pytest.raises(FileNotFound):
        await store.size(KEY)
    with pytest.raises(FileNotFound):
        await content(store)


@pytest.mark.parametrize(
    ("bounds", "expected"), [((), b"onetwo"), ((2,), b"etwo"), ((1, 4), b"net"), ((3, 3), b""), ((0, 99), b"onetwo"), ((9,), b"")]
)
async def test_read_takes_a_range(store, bounds, expected):
    await put(store)
    assert await content(store, KEY, *bounds) == expected


async def test_read_streams_in_chunks(store):
    await put(store, parts=(bytes(PART_BYTES), b"tail"))
    sizes = [len(chunk) async for chunk in store.read(KEY)]
    assert max(sizes) == local_module.READ_BYTES
    assert sum(sizes) == PART_BYTES + 4


@pytest.mark.parametrize("whole", [False, True], ids=["parts", "whole"])
async def test_nothing_is_published_before_it_is_on_disk(store, root, monkeypatch, whole):
    flushed = []
    monkeypatch.setattr(local_module, "_flush", lambda descriptor: flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink())))

    rename = Path.replace

    def replace_spy(path, target):
        assert any(name == str(path) for name in flushed), f"{path} renamed before it was flushed"
        flushed.append(f"renamed to {target}")
        return rename(path, target)

    monkeypatch.setattr("pathlib.Path.replace", replace_spy)
    if whole:
        await store.put(KEY, "image/png", b"one", sha256(b"one"))
    else:
        await put(store)
    after = flushed[flushed.index(f"renamed to {root / 'objects' / KEY}") :]
    for folder in (root / "objects/artifacts/default/job-1/1", root / "objects/artifacts", root / "objects", root):
        assert str(folder) in after  # new entries survive a power cut only with their folder


async def test_put_stores_in_one_call_and_again(store, root):
    for _ in range(2):
        stored = await store.put(KEY, "image/png", b"one", sha256(b"one"))
        assert (stored.key, stored.size_bytes, stored.sha256) == (KEY, 3, sha256(b"one"))
        assert await content(store) == b"one"
    with pytest.raises(UploadFailed, match="sha256"):
        await store.put(KEY, "image/png", b"two", sha256(b"one"))
    assert await content(store) == b"one"
    assert list((root / "uploads").iterdir()) == []


async def test_put_never_leaves_the_folder(store):
    with pytest.raises(InvalidInput):
        await store.put("../escape", "image/png", b"one", sha256(b"one"))


async def test_check_gives_every_machine_the_same_identity(store, root):
    first = await store.check()
    assert await LocalStore(root).check(first) == first
    assert sorted(path.name for path in root.iterdir()) == ["objects", "store-id", "uploads"]


async def test_check_names_the_remedy_on_a_machine_with_another_folder(store, tmp_path):
    first = await store.check()
    with pytest.raises(Unavailable, match="mount one shared folder on all, or use S3"):
        await LocalStore(tmp_path / "elsewhere").check(first)


async def test_check_reports_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be written"):
        await LocalStore(tmp_path / "file").check()


async def test_sweep_drops_only_uploads_that_nobody_touches(store, root):
    old, new = [await store.begin(KEY, "image/png") for _ in range(2)]
    os.utime(root / "uploads" / old.upload_id, (0, 0))
    killed = root / "uploads" / "whole-of-a-put"
    killed.write_bytes(b"half")
    os.utime(killed, (0, 0))
    assert await store.sweep(3600) == 2
    assert [path.name for path in (root / "uploads").iterdir()] == [new.upload_id]


async def test_factory_builds_the_configured_store(tmp_path):
    store = build_object_store(StorageConfig(root=tmp_path))
    assert isinstance(store, LocalStore)
    with pytest.raises(ValueError, match="provider"):
        StorageConfig(provider="floppy", root=tmp_path)
