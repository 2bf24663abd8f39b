"""The drawing page: what it loads exists, what it names is there, and it says everything in both languages."""

from __future__ import annotations

import re

from serve_app.web.pages import STATIC, STRICT

PAGE = (STATIC / "draw.html").read_text("utf-8")
SCRIPTS = {path.name: path.read_text("utf-8") for path in (STATIC / "draw").glob("*.js")}
STYLE = (STATIC / "draw" / "draw.css").read_text("utf-8")
ALL = "".join(SCRIPTS.values())


def keys_of(language):
    found = re.search(rf"^  {language}: {{\n(.+?)^  }},$", SCRIPTS["texts.js"], re.MULTILINE | re.DOTALL)
    assert found is not None
    return re.findall(r'(?:^|, | {4})(\w+): (?:"|\[)', found[1], re.MULTILINE)


async def test_it_is_served_with_the_strict_policy_and_all_its_files(client):
    answer = await client.get("/draw")
    assert (answer.status_code, answer.headers["content-security-policy"]) == (200, STRICT)
    files = set(re.findall(r'(?:href|src)="(static/[^"]+)"', PAGE)) | {
        f"static/draw/{name}" for name in re.findall(r'from "\./(\S+)"', ALL)
    }
    assert {f"static/draw/{name}" for name in SCRIPTS} <= files
    assert {name: (await client.get(f"/{name}")).status_code for name in files} == dict.fromkeys(files, 200)


def test_nothing_comes_from_another_host_and_nothing_needs_a_looser_policy():
    assert not re.search(r"https?://|//[a-z]+\.[a-z]+/", PAGE + ALL + STYLE)
    assert not re.search(r"style=|innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|url\(", PAGE + ALL + STYLE)


def test_the_script_finds_what_it_names():
    named = set(re.findall(r'\$\("([^"]+)"\)', SCRIPTS["main.js"]))
    assert len(named) > 20
    assert named <= set(re.findall(r'id="([^"]+)"', PAGE))


def test_everything_is_said_in_both_languages():
    english, chinese = keys_of("en"), keys_of("zh")
    assert english == chinese
    used = set(re.findall(r'data-(?:text|title|label)="(\w+)"', PAGE)) | set(re.findall(r'\b(?:text|say)\("(\w+)"', SCRIPTS["main.js"]))
    assert used - {"error"} <= set(english)
    assert len(set(english)) == len(english) > 40


def test_every_control_has_a_name():
    for control in re.findall(r"<(?:input|select|textarea|canvas|progress|output)[^>]*>", PAGE):
        before = PAGE[: PAGE.index(control)]
        in_label = before.rindex("<label") > before.rindex("</label") if "</label" in before else "<label" in before
        assert in_label or "aria-label" in control, control
