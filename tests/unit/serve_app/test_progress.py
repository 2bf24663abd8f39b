"""How jobs are shown: notes, lines where there is no terminal, bars where there is one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from serve_app.progress import JobProgress, note_of


def at(comfy_node, title, step=None, steps=None, fraction=0.5):
    shown = {"stage": "computing", "fraction": fraction, "comfy_node": comfy_node, "comfy_node_title": title, "step": step, "steps": steps}
    return {"type": "progress", "progress": {name: value for name, value in shown.items() if value is not None}}


def state(status, **more):
    return {"type": "state", "status": status, "attempt": 1, **more}


class Service:
    def __init__(self, *happened):
        self.happened = happened

    def events(self, job_id):
        return iter(self.happened)

    def get(self, job_id):
        return {"id": job_id}


def shown(*happened, terminal=False):
    printed = io.StringIO()
    with JobProgress(Console(file=printed, width=100, force_terminal=terminal)) as progress:
        assert progress.follow(Service(*happened), "7", "draw [red]") == {"id": "7"}
    return printed.getvalue()


@pytest.mark.parametrize(
    ("progress", "note"),
    [
        ({"stage": "fetching"}, "fetching"),
        ({"stage": "computing", "frame": 12, "frames": 50, "eta_s": 3.4}, "computing 12/50, 3 s left"),
        ({"stage": "computing", "frames": 50}, "computing 0/50"),
        ({"stage": "computing", "comfy_node": "3", "comfy_node_title": "Sampler", "step": 12, "steps": 20}, "Sampler 12/20"),
        ({"stage": "computing", "comfy_node": "3", "comfy_node_title": "Decode", "frames": 50}, "Decode"),
        ({"stage": "computing", "comfy_node": "3", "comfy_node_title": "a\x1b[2J\nb"}, "a [2J b"),
    ],
)
def test_note_says_where_a_job_is(progress, note):
    assert note_of(progress) == note


def test_without_a_terminal_each_node_is_a_line_and_its_steps_are_none():
    happened = [
        state("running"),
        at("3", "Sampler", 1, 20),
        at("3", "Sampler", 2, 20),
        at(None, None),
        at("3", "Sampler", 9, 20),
        at("8", "[/] x"),
    ]
    assert shown(*happened, state("succeeded")).splitlines() == [
        "draw [red]: running, attempt 1",
        "draw [red]: Sampler 1/20",
        "draw [red]: [/] x",
        "draw [red]: succeeded",
    ]


def test_without_a_terminal_a_failure_cannot_command_it():
    error = {"code": "comfy_node_failed", "message": "node 3 failed: \x1b]0;title\x07"}
    assert shown(state("failed", error=error)) == "draw [red]: failed, comfy_node_failed: node 3 failed:  ]0;title \n"


def test_in_a_terminal_the_bar_shows_titles_as_they_are():
    printed = shown(at("3", "[/red] Sampler", 4, 20), terminal=True)
    assert "draw [red]" in printed
    assert "[/red] Sampler 4/20" in printed
