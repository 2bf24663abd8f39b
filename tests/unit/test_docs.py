"""What the pages say exists, exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deployments.jobs import errors
from deployments.metrics import COUNTERS, GAUGES, HISTOGRAMS

ROOT = Path(__file__).parents[2]
MADE_BY_TOOLS = {".git", ".venv", ".tools", "var", "build", "dist", "node_modules"}
PAGES = sorted(
    p for p in ROOT.rglob("*.md") if not any(part in MADE_BY_TOOLS or part.endswith("_cache") for part in p.relative_to(ROOT).parts)
)
IDS = [str(page.relative_to(ROOT)) for page in PAGES]

FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SETTING = re.compile(r"\bATELIER_[A-Z0-9_]*[A-Z0-9]\b")  # not ATELIER_MEDIA__…: the beginning of several names ends in an underscore
METRIC = re.compile(r"(?<![\w/.-])(?:ray_)?atelier_([a-z_]+)")
ENDINGS = re.compile(r"_(total|bucket|sum|count)$")  # what Prometheus adds
TROUBLES = re.compile(r"^\| `([a-z_]+)` \| (?:\d{3}|job)", re.MULTILINE)


def all_errors():
    found = [errors.ServiceError]
    for error in found:
        found.extend(error.__subclasses__())
    return found


def test_pages_are_found():
    assert {"README.md", "docs/architecture.md", "docs/operations.md"} <= set(IDS)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_relative_links_lead_somewhere(page):
    targets = (target.partition("#")[0] for target in LINK.findall(FENCE.sub("", page.read_text("utf-8"))) if "://" not in target)
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_settings_are_those_of_the_example(page):
    known = set(SETTING.findall((ROOT / ".env.example").read_text("utf-8")))
    assert set(SETTING.findall(page.read_text("utf-8"))) - known == set()


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_metrics_are_those_that_are_sent(page):
    named = {ENDINGS.sub("", name) for name in METRIC.findall(page.read_text("utf-8"))}
    assert named - {*COUNTERS, *GAUGES, *HISTOGRAMS} == set()


def test_every_metric_is_explained_to_operators():
    named = set(re.findall(r"^\| `atelier_([a-z_]+)` \|", (ROOT / "docs/operations.md").read_text("utf-8"), re.MULTILINE))
    assert named == {*COUNTERS, *GAUGES, *HISTOGRAMS}


def test_troubleshooting_knows_only_codes_that_exist():
    named = TROUBLES.findall((ROOT / "docs/operations.md").read_text("utf-8"))
    assert len(named) > 20
    assert len(set(named)) == len(named)
    assert set(named) - {error.code for error in all_errors()} == set()


def test_troubleshooting_says_rightly_what_is_worth_another_try():
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    said = dict(re.findall(r"^\| `([a-z_]+)` \| (?:\d{3}|job)[^|]*\| (yes|no) \|", page, re.MULTILINE))
    assert said == {error.code: "yes" if error.retryable else "no" for error in all_errors() if error.code in said}
    assert set(said) == set(TROUBLES.findall(page))


def test_decisions_are_numbered_without_a_gap():
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs/decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
