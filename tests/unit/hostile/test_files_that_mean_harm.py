"""Every file of the list ends with its code: none crashes a worker, hangs it, fills its memory, or has it read anything else."""

from __future__ import annotations

import multiprocessing
import socket
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.unit.hostile.files import CANARY, FILES
from tests.unit.hostile.judge import judge, peak_bytes
from tests.unit.hostile.listing import expected

EXPECTED = expected("Files")
HANGS_S = 30  # the slowest takes a third of a second
MEMORY = 2**30


@pytest.fixture(scope="module")
def worker():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def canary():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def test_the_list_and_the_files_are_the_same():
    assert list(EXPECTED) == list(FILES)
    assert len(FILES) >= 60


@pytest.mark.parametrize("name", list(FILES))
def test_a_hostile_file_ends_with_its_code(worker, canary, tmp_path, name):
    path = tmp_path / name
    port = canary.getsockname()[1]
    place = f"127.0.0.1:{port}".encode()
    assert len(place) == len(CANARY), "the system gives ports of five digits"
    path.write_bytes(FILES[name]().replace(CANARY, place))
    assert worker.submit(judge, path).result(HANGS_S) == EXPECTED[name]
    with pytest.raises(BlockingIOError):
        canary.accept()


def test_none_of_them_took_much_memory(worker):
    assert worker.submit(peak_bytes).result(HANGS_S) < MEMORY
