"""The figures of strokes, with the strokes of one client."""

from __future__ import annotations

import time

import pytest

from deployments.drawing.stroke_watch import StrokeWatch
from deployments.jobs.errors import StoreUnavailable


class Reports:
    """A store that takes reports."""

    def __init__(self):
        self.taken = []
        self.down = False

    async def report_strokes(self, strokes):
        if self.down:
            raise StoreUnavailable("away")
        self.taken.append(strokes)


@pytest.fixture
def reports():
    return Reports()


@pytest.fixture
def watch(reports):
    return StrokeWatch(reports)


async def test_a_picture_answers_every_stroke_that_it_shows(watch, reports):
    client, now = watch.client(), time.monotonic()
    for n in range(4):
        client.arrived(now - 1 + n / 10)
    client.dropped()
    client.accepted(now - 0.9, 1, replaced=False)
    client.accepted(now - 0.8, 2, replaced=True)
    client.previewed(2)
    client.completed(2)
    client.accepted(now - 0.7, 3, replaced=False)
    client.completed(3)
    await watch.report()
    [strokes] = reports.taken
    assert (strokes.received, strokes.dropped) == (4, 2)
    assert [round(wait, 1) for wait in strokes.to_result_s] == [1.0, 0.9, 0.8, 0.7]
    assert len(strokes.to_preview_s) == 3
    assert not client.open


async def test_nobody_waits_for_what_is_refused_or_failed_or_there_already(watch, reports):
    client, now = watch.client(), time.monotonic()
    client.arrived(now)
    client.refused(now)
    client.arrived(now + 1)
    client.accepted(now + 1, 1, replaced=False)
    client.gave_up(1)
    client.arrived(now + 2)
    client.skipped(now + 2, 1, is_shown=True)
    assert not client.open
    await watch.report()
    await watch.report()
    [strokes] = reports.taken
    assert (strokes.refused, strokes.skipped, strokes.to_result_s) == (1, 1, ())


async def test_a_stroke_like_the_last_waits_for_the_picture_of_that_one(watch, reports):
    client, now = watch.client(), time.monotonic()
    client.arrived(now - 2)
    client.accepted(now - 2, 1, replaced=False)
    client.arrived(now - 1)
    client.skipped(now - 1, 1, is_shown=False)
    client.completed(1)
    await watch.report()
    assert [round(wait) for wait in reports.taken[0].to_result_s] == [2, 1]


async def test_figures_are_lost_rather_than_kept_for_a_store_that_is_away(watch, reports):
    watch.client().arrived(0.0)
    reports.down = True
    with pytest.raises(StoreUnavailable):
        await watch.report()
    reports.down = False
    await watch.report()
    assert reports.taken == []
