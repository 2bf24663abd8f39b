"""Tasks on Duix services, with everything that they do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import av
import pytest

from deployments.duix_bridge.config import DuixConfig
from deployments.duix_bridge.exchange import CODE_PREFIX
from deployments.duix_bridge.upstreams import Upstreams
from deployments.jobs.errors import BackendLost, BackendUnavailable, EngineFailed, OutputsLost, UnsupportedMedia
from deployments.jobs.model import Progress
from deployments.jobs.ports import NoMetrics, RunFacts, SystemClock
from deployments.storage.sweep import Swept
from tests.fake_duix import FakeDuix, Habits

from .conftest import AUDIO_S, QUICK, Bridge, output_of, running

pytestmark = pytest.mark.slow

Services = tuple[FakeDuix, FakeDuix]


async def until(condition: Any, what: str) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "data" / "temp").iterdir() if not path.name.startswith("fetched-"))


async def test_a_clip_speaks(bridge, services, tmp_path):
    items = await bridge.run(bridge.task())
    output = output_of(items)
    with av.open(output.path) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert (picture.width, picture.height, picture.frames) == (640, 360, round(AUDIO_S * 25))
        assert sound.rate == 44100, "the job's own audio, not the 16 kHz that the service was given"
        assert sum(frame.samples for frame in container.decode(sound)) == pytest.approx(44100, abs=1024)  # the encoder's last block
    assert (output.width, output.height, output.media_type) == (640, 360, "video/mp4")
    (facts,) = (item for item in items if isinstance(item, RunFacts))
    assert facts.values["backend"] in {"gpu0", "gpu1"}
    await until(lambda: left_behind(tmp_path) == [], "its files are gone")


async def test_progress_never_jumps_back(bridge, services):
    for service in services:
        service.habits.progress = (10, 60, 30, 90)
    fractions = [item.fraction for item in await bridge.run(bridge.task()) if isinstance(item, Progress)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(0.95 * 0.9)


async def test_a_still_becomes_a_clip_since_the_service_takes_none(bridge, services):
    output = output_of(await bridge.run(bridge.task("astronaut.png")))
    assert (output.width, output.height) == (512, 512)
    (task,) = services[0].accepted + services[1].accepted
    assert task.body["video_url"].endswith(".mp4")


@pytest.mark.parametrize(("options", "flag"), [({}, 0), ({"enhance": True}, 1)])
async def test_what_the_service_is_told(bridge, services, options, flag):
    await bridge.run(bridge.task(**options))
    (task,) = services[0].accepted + services[1].accepted
    told = {name: task.body[name] for name in ("chaofen", "watermark_switch", "digital_auth", "pn")}
    assert told == {"chaofen": flag, "watermark_switch": 0, "digital_auth": 0, "pn": 1}


async def test_two_at_a_time_on_two_services_and_never_two_on_one(bridge, services):
    for service in services:
        service.habits.hold = True
    runs = [asyncio.create_task(bridge.run(bridge.task())) for _ in range(2)]
    await until(lambda: all(len(service.tasks) == 1 for service in services), "both services have a task")
    taking = asyncio.create_task(bridge.upstreams.take())
    done, _ = await asyncio.wait({taking}, timeout=0.3)
    assert not done, "a third job would find no service"
    services[0].habits.hold = services[1].habits.hold = False
    await asyncio.gather(*runs)
    (await taking).give_back()


async def test_a_busy_one_is_passed_over(bridge, services):
    services[0].habits.stranger = True
    for _ in range(2):
        await bridge.run(bridge.task())
    assert (len(services[0].accepted), len(services[1].accepted)) == (0, 2)


async def test_nothing_stays_in_the_folder_for_a_service_that_was_busy(config, services, tmp_path, media):
    for service in services:
        service.habits.stranger = True
    async with running(config.model_copy(update={"cleanup_delay_s": 600.0}), tmp_path, media) as bridge:
        with pytest.raises(BackendUnavailable):
            await bridge.run(bridge.task())
        assert left_behind(tmp_path) == []


async def test_when_all_are_busy_the_job_goes_back_to_the_queue_and_is_taken_again_later(bridge, services):
    for service in services:
        service.habits.stranger = True
    with pytest.raises(BackendUnavailable):
        await bridge.run(bridge.task())
    for service in services:
        service.habits.stranger = False
    output_of(await bridge.run(bridge.task()))


async def test_one_that_dies_with_the_task_is_left_alone_by_the_next_attempt(bridge, services):
    for service in services:
        service.habits.hold = True
    run = asyncio.create_task(bridge.run(bridge.task(job_id="one")))
    await until(lambda: services[0].tasks or services[1].tasks, "a service has the task")
    dying, other = services if services[0].tasks else reversed(services)
    dying.kill()
    with pytest.raises(BackendLost, match="does not answer"):
        await run
    dying.start()
    other.habits.hold = dying.habits.hold = False
    await until(lambda: len([up for up in bridge.upstreams._all if up.healthy and not up.held]) == 2, "it is back")
    output_of(await bridge.run(bridge.task(job_id="one")))
    assert len(other.accepted) == 1


async def test_one_that_was_restarted_has_forgotten_the_task(bridge, services):
    for service in services:
        service.habits.hold = True
    run = asyncio.create_task(bridge.run(bridge.task()))
    await until(lambda: services[0].tasks or services[1].tasks, "a service has the task")
    (services[0] if services[0].tasks else services[1]).tasks.clear()
    with pytest.raises(BackendLost, match="no longer knows the task"):
        await run
    for service in services:
        service.habits.hold = False


async def test_an_end_that_nobody_heard_of_costs_nothing_where_the_folder_is_shared(bridge, services):
    for service in services:
        service.habits.drop_end_answer = True
    output_of(await bridge.run(bridge.task()))
    assert len(services[0].accepted + services[1].accepted) == 1


async def test_a_submit_whose_answer_is_lost_is_not_sent_again(bridge, services):
    for service in services:
        service.habits.drop_submit_answer = True
    output_of(await bridge.run(bridge.task()))
    assert len(services[0].accepted + services[1].accepted) == 1


async def test_a_task_that_stands_still_is_given_up_and_its_service_gets_no_other(config, services, tmp_path, media):
    for service in services:
        service.habits.hold, service.habits.progress = True, (5,)
    impatient = config.model_copy(update={"silence_s": 0.2})
    async with running(impatient, tmp_path, media) as bridge:
        with pytest.raises(BackendLost, match="restart its container"):
            await bridge.run(bridge.task())
        (stuck,) = (up for up in bridge.upstreams._all if up.leaving)
        services[0].habits.hold = services[1].habits.hold = False
        await until(lambda: not stuck.leaving and stuck.healthy, "it has ended the task and answers again")
    assert left_behind(tmp_path) == []


async def test_files_that_grow_are_a_sign_of_life(config, services, tmp_path, media):
    for service in services:
        service.habits.hold, service.habits.progress = True, (5,)
    async with running(config.model_copy(update={"silence_s": 0.3}), tmp_path, media) as bridge:
        run = asyncio.create_task(bridge.run(bridge.task()))
        await until(lambda: services[0].tasks or services[1].tasks, "a service has the task")
        (code,) = {*services[0].tasks, *services[1].tasks}
        with (tmp_path / "data" / "temp" / f"{code}_format.mp4").open("wb", buffering=0) as file:
            for _ in range(20):  # three times the silence
                file.write(b"frame")
                await asyncio.sleep(0.05)
        assert not run.done()
        services[0].habits.hold = services[1].habits.hold = False
        output_of(await run)


async def test_a_cancelled_task_holds_its_service_until_it_has_ended(bridge, services, tmp_path):
    for service in services:
        service.habits.hold = True
    run = asyncio.create_task(bridge.run(bridge.task()))
    await until(lambda: services[0].tasks or services[1].tasks, "a service has the task")
    run.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await run
    assert [up.leaving for up in bridge.upstreams._all].count(True) == 1
    services[0].habits.hold = services[1].habits.hold = False
    await until(lambda: not any(up.held for up in bridge.upstreams._all), "it is free again")
    await until(lambda: left_behind(tmp_path) == [], "its files are gone")


async def test_one_whose_queue_is_full_rests_until_it_is_restarted(services, tmp_path, media):
    (service, _), config = services, DuixConfig(upstreams=(services[0].url,), data_dir=tmp_path / "data", dead_s=60.0, **QUICK)
    service.habits.submit = (9999, "driver queue full at /code/service.py")
    async with running(config, tmp_path, media) as bridge:
        with pytest.raises(BackendLost, match="restart its container"):
            await bridge.run(bridge.task())
        (dead,) = bridge.upstreams._all
        assert dead.dead
        service.habits.submit = None
        service.kill()
        await until(lambda: not dead.dead, "it was seen to go down")
        service.start()
        output_of(await bridge.run(bridge.task()))


@pytest.mark.parametrize(
    ("habits", "error", "text"),
    [
        (Habits(fails="[Errno 2] /code/data/temp/a.mp4 format video error"), EngineFailed, "format video error"),
        (Habits(submit=(10002, "audio_url参数缺失")), EngineFailed, "参数缺失"),
        (Habits(submit=(9999, "")), EngineFailed, "does not say why"),
        (Habits(shorter_s=0.8), OutputsLost, "0.2 of 1.0 seconds"),
        (Habits(lag_s=30.0), OutputsLost, "not in the shared folder"),
    ],
)
async def test_what_goes_wrong_is_said(config, services, tmp_path, media, habits, error, text):
    services[0].habits = services[1].habits = habits
    async with running(config.model_copy(update={"appear_s": 0.3}), tmp_path, media) as bridge:
        with pytest.raises(error, match=text) as caught:
            await bridge.run(bridge.task())
    assert "/code" not in str(caught.value)


async def test_a_video_that_appears_late_is_waited_for(bridge, services):
    for service in services:
        service.habits.lag_s = 0.5
    output_of(await bridge.run(bridge.task()))


async def test_what_is_no_duix_service_gets_no_task(config, services, tmp_path, media):
    services[0].habits.foreign = services[1].habits.foreign = True
    async with running(config, tmp_path, media) as bridge:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await bridge.upstreams.take()


async def test_the_inputs_are_looked_at_before_a_service_is_troubled(bridge, services):
    with pytest.raises(UnsupportedMedia):
        await bridge.run(bridge.task("CREDITS.md"))
    assert services[0].accepted + services[1].accepted == []


async def test_files_stay_a_while_and_go_at_the_latest_with_the_replica(config, services, tmp_path, media):
    async with running(config.model_copy(update={"cleanup_delay_s": 600.0}), tmp_path, media) as bridge:
        await bridge.run(bridge.task())
        assert len(left_behind(tmp_path)) == 3  # audio, clip and video
        assert bridge.upstreams.remove_orphans(0.0) == Swept(), "they are still somebody's"
    assert left_behind(tmp_path) == []


async def test_what_a_killed_replica_left_is_swept_once_nothing_is_written_for_it(config, services, tmp_path):
    temp, stranger = tmp_path / "data" / "temp", "holiday-r.mp4"
    dead, young = f"{CODE_PREFIX}{'0' * 32}", f"{CODE_PREFIX}{'1' * 32}"
    for name in (f"{dead}.wav", f"{dead}_format.mp4", f".{dead}.mp4.partial", f"{young}.wav", f"{young}_format.mp4", stranger):
        (temp / name).write_bytes(b"12345")
        if not name.startswith(young) or name.endswith("wav"):
            os.utime(temp / name, (1, 1))
    assert Upstreams(config, NoMetrics(), SystemClock()).remove_orphans(3600.0) == Swept(3, 15)
    assert left_behind(tmp_path) == sorted([f"{young}.wav", f"{young}_format.mp4", stranger])


async def test_files_go_by_url_where_no_folder_is_shared(services, tmp_path, media, unused_tcp_port):
    config = DuixConfig(
        upstreams=(f"{services[0].url}#results={services[0].url}/temp",), offer_url=f"http://127.0.0.1:{unused_tcp_port}", **QUICK
    )
    async with running(config, tmp_path, media) as bridge:
        output_of(await bridge.run(bridge.task()))
        (task,) = services[0].accepted
        assert task.body["audio_url"].startswith(config.offer_url)
        await until(lambda: not bridge.upstreams._offers._files, "nothing is offered any more")


async def test_a_folder_that_cannot_be_written_hands_the_job_back(bridge: Bridge, services: Services, tmp_path: Path) -> None:
    temp = tmp_path / "data" / "temp"
    temp.rmdir()
    temp.write_text("not a folder")
    with pytest.raises(BackendUnavailable, match="DUIX_DATA_DIR"):
        await bridge.run(bridge.task())
