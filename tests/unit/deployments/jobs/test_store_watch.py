"""What is said of the object store."""

from __future__ import annotations

import asyncio

import pytest

from deployments.jobs.errors import UploadFailed
from deployments.jobs.store_watch import ObjectStoreWatch


@pytest.mark.parametrize(("error", "said"), [(UploadFailed("there is no such bucket"), "no such bucket"), (KeyError("x"), "KeyError")])
async def test_a_store_that_goes_away_and_comes_back(error, said):
    answers = asyncio.Queue()

    async def check():
        answer = await answers.get()
        if answer is not None:
            raise answer

    async def found(wanted):
        async with asyncio.timeout(5):
            while (watch.problem is None) != wanted:
                await asyncio.sleep(0)

    watch = ObjectStoreWatch("s3", check, 0.001, 0.001)
    began = watch.checked_at
    watch.start()
    try:
        answers.put_nowait(error)
        await found(wanted=False)
        assert watch.problem is not None
        assert said in watch.problem
        answers.put_nowait(None)
        await found(wanted=True)
        assert watch.checked_at > began
    finally:
        await watch.close()
