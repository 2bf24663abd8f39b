"""One job on a fake backend, hazards included: it ends with the right result, and says what went wrong when it cannot."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from deployments.comfyui_bridge.engine import _failure_of
from deployments.comfyui_client.http import HistoryEntry
from deployments.fake_comfyui.config import Hazards
from deployments.jobs.errors import (
    BackendLost,
    BackendUnavailable,
    ComfyNodeFailed,
    ComfyOutOfMemory,
    OutputsLost,
    UnsupportedMedia,
    WorkflowInvalid,
)
from tests.workflows import Registry, collect, empty_image, pixel, text_to_image

pytestmark = pytest.mark.slow  # real servers and sockets, and time passes


async def test_run_yields_progress_previews_and_the_picture(fake, build_bridge, task):
    async with build_bridge(Registry(fake)) as bridge:
        found = await collect(bridge.engine, task(text_to_image()))
    (file,) = found.files
    assert (file.name, file.media_type, file.width, file.height, file.comfy_node) == ("job_9_0.png", "image/png", 64, 64, "9")
    assert file.path.read_bytes().startswith(b"\x89PNG")
    fractions = [progress.fraction for progress in found.progress]
    assert fractions == sorted(fractions)
    assert {"KSampler"} <= {progress.comfy_node_title for progress in found.progress}
    assert max((progress.step or 0) for progress in found.progress) >= 2
    assert found.previews
    assert found.previews[0].media_type == "image/jpeg"
    assert found.facts["backend"] == "fake0"
    assert fake.executed == [found.facts["prompt_id"]]


async def test_run_fills_an_open_choice_and_says_which(fake, build_bridge, task):
    async with build_bridge(Registry(fake)) as bridge:
        found = await collect(bridge.engine, task(text_to_image(ckpt=""), choices_open=("4.ckpt_name",)))
    assert found.facts["chosen"] == {"4.ckpt_name": "fake_sd15.safetensors"}


async def test_run_names_the_refused_input(fake, build_bridge, task):
    async with build_bridge(Registry(fake)) as bridge:
        with pytest.raises(WorkflowInvalid) as caught:
            await collect(bridge.engine, task(text_to_image(ckpt="nope.safetensors")))
    (problem,) = caught.value.problems
    assert (problem.comfy_node, problem.input, problem.kind, problem.received) == (
        "4",
        "ckpt_name",
        "value_not_in_list",
        "nope.safetensors",
    )


async def test_run_refuses_a_partly_valid_graph_unless_allowed(fake, build_bridge, task):
    graph = empty_image() | {"3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "no-images"}}}
    async with build_bridge(Registry(fake)) as bridge:
        with pytest.raises(WorkflowInvalid, match="leave out"):
            await collect(bridge.engine, task(graph))
        found = await collect(bridge.engine, task(graph, job_id="allowed", allow_node_errors=True))
    assert [file.comfy_node for file in found.files] == ["2"]


async def test_a_failing_node_keeps_the_outputs_before_it(fake, build_bridge, task):
    graph = empty_image() | {
        "3": {"class_type": "FakeFail", "inputs": {"image": ["1", 0], "message": "no luck in /srv/models/secret/x.bin"}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "never"}},
    }
    kept = []
    async with build_bridge(Registry(fake)) as bridge:
        with pytest.raises(ComfyNodeFailed) as caught:
            async with contextlib.aclosing(bridge.engine.run(task(graph))) as items:
                async for item in items:
                    kept.append(item)
    names = [item.name for item in kept if hasattr(item, "name")]
    assert names == ["job_2_0.png"]
    assert caught.value.comfy_node == "3"
    assert "no luck" in str(caught.value)
    assert "/srv" not in str(caught.value)


async def test_pictures_of_the_websocket_alone_are_outputs(fake, build_bridge, task):
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 16, "batch_size": 2, "color": 255}},
        "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
    }
    async with build_bridge(Registry(fake)) as bridge:
        found = await collect(bridge.engine, task(graph))
    assert [(file.name, file.width, file.height) for file in found.files] == [("job_2_0.png", 32, 16), ("job_2_1.png", 32, 16)]


async def test_a_cached_preview_whose_file_is_gone_is_made_again(fake, build_bridge, task):
    graph = text_to_image() | {"9": {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}}
    async with build_bridge(Registry(fake)) as bridge:
        first = await collect(bridge.engine, task(graph))
        fake.delete_outputs(first.facts["prompt_id"])
        second = await collect(bridge.engine, task(graph, job_id="again"))
    assert [(file.name, file.temporary) for file in second.files] == [("again_9_0.png", True)]
    assert second.files[0].path.read_bytes() == first.files[0].path.read_bytes()


async def test_only_the_node_that_saves_runs_again_for_a_graph_that_was_run_before(fake, build_bridge, task):
    async with build_bridge(Registry(fake)) as bridge:
        for n in range(3):
            found = await collect(bridge.engine, task(text_to_image(), job_id=f"j{n}"))
            assert len(found.files) == 1
    assert (fake.executions_by_node["KSampler"], fake.executions_by_node["SaveImage"]) == (1, 3)


async def test_a_result_is_never_anothers_although_the_backend_lost_its_folder_meanwhile(fake, build_bridge, task):
    async with build_bridge(Registry(fake)) as bridge:
        taken = bridge.fleet._backends["fake0"].http.download
        swapped = []

        async def late(place, path, max_bytes):
            if not swapped:  # between the end of the prompt and the download, the server comes back empty and runs a stranger's prompt
                swapped.append(place)
                for file in fake.files.folder("output").iterdir():
                    file.unlink()
                await fake.restart()
                await collect(bridge.engine, task(empty_image(color=9), job_id="stranger"))
            return await taken(place, path, max_bytes)

        bridge.fleet._backends["fake0"].http.download = late
        found = await collect(bridge.engine, task(empty_image(color=3)))
    assert pixel(found.files[0].path) == (0, 0, 3)


async def test_pictures_that_never_arrive_are_no_success(fake, build_bridge, task, monkeypatch):
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 16, "batch_size": 1, "color": 1}},
        "3": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
    }
    async with build_bridge(Registry(fake)) as bridge:
        monkeypatch.setattr(bridge.fleet._backends["fake0"], "on_picture", lambda picture: None)
        with pytest.raises(OutputsLost):
            await collect(bridge.engine, task(graph))
    assert len(fake.executed) == 3  # each pass ran it anew


async def test_pictures_of_a_stranger_are_not_taken_for_outputs(fake, build_bridge, task):
    def graph(color):
        return {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 16, "batch_size": 1, "color": color}},
            "2": {"class_type": "FakeDelay", "inputs": {"image": ["1", 0], "seconds": 0.05}},
            "3": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["2", 0]}},
        }

    async with build_bridge(Registry(fake)) as bridge:
        results = []
        for n in range(0, 6, 2):
            jobs = (collect(bridge.engine, task(graph(k), job_id=f"j{k}")) for k in (n, n + 1))
            results += await asyncio.gather(*jobs)
    assert [[pixel(file.path)[2] for file in found.files] for found in results] == [[n] for n in range(6)]


@pytest.mark.parametrize(
    "hazards",
    [
        {"late_history_s": 0.15}, {"no_jobs_api": True}, {"lose_success_event": 1.0}, {"head_of_line_stall": True},
        {"reconnect_loses_events": True, "drop_websocket": 0.05}, {"drop_websocket": 0.05}, {"cached_outputs_missing": 1.0},
    ],
    ids="+".join,
)  # fmt: skip
async def test_ten_jobs_end_right_under(run_fake, build_bridge, task, hazards):
    async with run_fake(hazards=Hazards(**hazards)) as fake, build_bridge(Registry(fake)) as bridge:

        async def one(n):
            found = await collect(bridge.engine, task(empty_image(color=n % 5), job_id=f"j{n}"))
            (file,) = found.files
            return pixel(file.path) == (0, 0, n % 5)

        # two at a time, as a fleet of one backend claims them
        results = []
        for n in range(0, 10, 2):
            results += await asyncio.gather(one(n), one(n + 1))
    assert results == [True] * 10


async def test_a_crashed_backend_is_a_loss_and_another_attempt_goes_elsewhere(run_fake, build_bridge, task):
    fatal = Hazards(crash_on_prompt=1.0, crash_down_s=None)
    async with run_fake(hazards=fatal) as bad, run_fake() as good, build_bridge(Registry(bad, good)) as bridge:
        bridge.fleet._backends["fake1"].used = 2  # the good one is full
        with pytest.raises(BackendLost):
            await collect(bridge.engine, task(empty_image()))
        bridge.fleet._backends["fake1"].used = 0
        found = await collect(bridge.engine, task(empty_image(), attempt=2))
    assert found.facts["backend"] == "fake1"


async def test_a_prompt_that_vanishes_without_a_word_is_a_loss(run_fake, build_bridge, task):
    async with run_fake(hazards=Hazards(silent_pending_delete=1.0)) as fake, build_bridge(Registry(fake)) as bridge:
        with pytest.raises(BackendLost, match="forgotten"):
            await collect(bridge.engine, task(empty_image()))


async def test_closing_a_run_stops_that_prompt_and_no_other(fake, build_bridge, task):
    hang = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "FakeHang", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "h"}},
    }
    async with build_bridge(Registry(fake)) as bridge:
        hanging = asyncio.create_task(collect(bridge.engine, task(hang, job_id="hang")))
        backend = bridge.fleet._backends["fake0"]
        while not (await backend.http.queue()).running:
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(collect(bridge.engine, task(empty_image(), job_id="waits")))
        while not (await backend.http.queue()).pending:
            await asyncio.sleep(0.01)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        assert not any(prompt.prompt_id for prompt in (await backend.http.queue()).running if prompt.prompt_id not in fake.executed)
        assert [file.name for file in (await waiting).files] == ["waits_2_0.png"]


async def test_a_waiting_prompt_is_cancelled_before_it_begins(fake, build_bridge, task):
    slow = empty_image() | {
        "3": {"class_type": "FakeDelay", "inputs": {"image": ["1", 0], "seconds": 0.5}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "s"}},
    }
    async with build_bridge(Registry(fake)) as bridge:
        running = asyncio.create_task(collect(bridge.engine, task(slow, job_id="slow")))
        backend = bridge.fleet._backends["fake0"]
        while not (await backend.http.queue()).running:
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(collect(bridge.engine, task(empty_image(color=9), job_id="waits")))
        while not (await backend.http.queue()).pending:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not (await backend.http.queue()).pending
        assert len((await running).files) == 1
    assert len(fake.executed) == 1


async def test_a_job_is_cancelled_although_the_server_takes_its_prompt_only_later(fake, build_bridge, task, monkeypatch):
    hang = empty_image() | {"3": {"class_type": "FakeHang", "inputs": {"image": ["1", 0]}}}
    hang["2"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "h"}}
    async with build_bridge(Registry(fake)) as bridge:
        backend = bridge.fleet._backends["fake0"]
        submit, begun, late = backend.http.submit, asyncio.Event(), []

        async def stalled(*arguments):
            begun.set()
            late.append(arguments)  # the request is on its way, and the server reads it when it gets to it
            await asyncio.Event().wait()

        monkeypatch.setattr(backend.http, "submit", stalled)
        job = asyncio.create_task(collect(bridge.engine, task(hang)))
        await begun.wait()
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await submit(*late[0])
        async with asyncio.timeout(5):
            while (queue := await backend.http.queue()).running or queue.pending:
                await asyncio.sleep(0.02)


async def test_outputs_that_cannot_be_taken_are_no_success(fake, build_bridge, task, monkeypatch):
    async with build_bridge(Registry(fake)) as bridge:
        http = bridge.fleet._backends["fake0"].http
        real = http.history

        async def odd(prompt_id):
            entry = await real(prompt_id)
            return entry and replace(entry, outputs={"2": {"images": [{"filename": "a.png", "subfolder": "/etc", "type": "output"}]}})

        monkeypatch.setattr(http, "history", odd)
        with pytest.raises(UnsupportedMedia, match="1 outputs"):
            await collect(bridge.engine, task(empty_image()))


async def test_what_one_backend_lacks_another_is_asked_for(run_fake, build_bridge, task):
    async with run_fake(checkpoints=("a",)) as one, run_fake(checkpoints=("b",)) as two, build_bridge(Registry(one, two)) as bridge:
        bridge.fleet._backends["fake1"].used = 1  # so that the one without the model comes first
        with pytest.raises(BackendUnavailable, match="lacks"):
            await collect(bridge.engine, task(text_to_image(ckpt="b")))
        found = await collect(bridge.engine, task(text_to_image(ckpt="b"), attempt=2))
        assert found.facts["backend"] == "fake1"
        for error in (BackendUnavailable, WorkflowInvalid):  # nobody has it, as is known once both were asked
            with pytest.raises(error):
                await collect(bridge.engine, task(text_to_image(ckpt="c"), job_id="hopeless"))


def test_what_a_node_says_shows_nothing_of_the_inside():
    said = (
        "cannot open /srv/a/b.bin at 10.0.0.5, http://user:pw@inner/x or C:\\Users\\bob\\y: no such file\nTraceback (most recent call last)"
    )
    error = {"node_id": "3", "node_type": "X", "exception_message": said, "exception_type": "torch.OutOfMemoryError"}
    failure = _failure_of(HistoryEntry({}, False, (("execution_error", error),)), {"3": {"class_type": "X", "inputs": {}}})
    assert isinstance(failure, ComfyOutOfMemory)
    assert failure.reason == "cannot open … at … … or … no such file"


async def test_no_backend_with_the_tags_hands_the_job_back(fake, build_bridge, task):
    async with build_bridge(Registry(fake, tags=[("sdxl",)])) as bridge:
        with pytest.raises(BackendUnavailable):
            await collect(bridge.engine, task(empty_image(), backend_tags=("flux",)))
        assert (await collect(bridge.engine, task(empty_image(), job_id="fits", backend_tags=("sdxl",)))).files
