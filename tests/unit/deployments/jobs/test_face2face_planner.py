"""Which engine a face2face job gets."""

from __future__ import annotations

import pytest

from deployments.jobs.errors import InvalidInput
from deployments.jobs.face2face_planner import DEAF_TO, Face2FacePlanner
from deployments.jobs.model import JsonObject
from deployments.jobs.spec import Face2FaceOptions, Face2FaceSpec

BEST_FIRST = ("duix", "wav2lip", "mesh")


class Intake:
    """Stores every request as it is."""

    async def stored_spec(self, _tenant: str, spec: Face2FaceSpec) -> JsonObject:
        return spec.model_dump(mode="json")


async def plan(installed, engine="auto", auto=BEST_FIRST, **options):
    spec = Face2FaceSpec.model_validate({"audio": "http://a/b.wav", "video": "http://a/b.mp4", "engine": engine, "options": options})
    return await Face2FacePlanner(Intake(), installed, auto).plan("default", spec)


@pytest.mark.parametrize(
    ("installed", "options", "engine", "pool"),
    [
        (("mesh",), {}, "mesh", None),
        (("mesh", "duix"), {}, "duix", "duix"),
        (("mesh", "wav2lip"), {}, "wav2lip", None),
        (("mesh", "wav2lip", "duix"), {"fps": 25}, "wav2lip", None),
        (("mesh", "wav2lip", "duix"), {"analysis": "dsp"}, "mesh", None),
        (("mesh", "wav2lip", "duix"), {"enhance": True}, "duix", "duix"),
        (("mesh", "duix"), {"loop": "pingpong", "analysis": "auto"}, "duix", "duix"),  # as they are anyway
    ],
)
async def test_auto_is_the_first_that_is_here_and_can_do_it(installed, options, engine, pool):
    found = await plan(installed, **options)
    assert (found.spec["engine"], found.requires, found.pool) == (engine, engine, pool)


async def test_the_operator_says_which_is_first():
    assert (await plan(("mesh", "duix"), auto=("mesh",))).requires == "mesh"
    assert (await plan(("mesh", "duix"), engine="duix", auto=("mesh",))).requires == "duix"


@pytest.mark.parametrize(
    ("installed", "asked", "said"),
    [
        (("mesh",), {"engine": "duix"}, "engine duix is not installed here: there is mesh"),
        (("mesh",), {"enhance": True}, "no engine here can follow all of options.enhance"),
        (("duix",), {"engine": "duix", "face": {"x": 0.5, "y": 0.5}, "fps": 25}, "cannot follow options.face, options.fps"),
        (("mesh",), {"engine": "mesh", "enhance": True}, "engine mesh cannot follow options.enhance"),
    ],
)
async def test_what_no_engine_can_do_is_refused_when_it_is_asked_for(installed, asked, said):
    with pytest.raises(InvalidInput, match=said):
        await plan(installed, **asked)


def test_every_option_that_an_engine_is_deaf_to_is_one():
    assert frozenset().union(*DEAF_TO.values()) <= Face2FaceOptions.model_fields.keys()
