"""Rules of the tree that no other tool holds."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for package in ("serve_app", "deployments") for path in (ROOT / package).rglob("*.py"))
CATCH_ALLS = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "tools"}
TEXT_SUFFIXES = {".py", ".toml", ".yaml", ".yml", ".md", ".lock", ".json", ".txt", ".js", ".html", ".css", ""}
MADE_BY_TOOLS = {".git", ".venv", ".tools", "var", "build", "dist"}
REGISTRY_HOSTS = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"))]


def text_files():
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if path.is_file() and path.suffix in TEXT_SUFFIXES and not MADE_BY_TOOLS & set(parts) and "cache" not in str(parts):
            yield path


def test_every_init_is_empty():
    assert [path for path in MODULES if path.name == "__init__.py" and path.stat().st_size] == []


def test_no_module_is_a_catch_all():
    assert [path for path in MODULES if path.stem.strip("_") in CATCH_ALLS] == []


def test_data_folders_are_no_packages():
    assert [name for name in ("workflows", "configs") if (ROOT / name / "__init__.py").exists()] == []


def test_test_files_have_names_of_their_own():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("host", REGISTRY_HOSTS)
def test_no_file_names_a_package_registry(host):
    assert [path for path in text_files() if host in path.read_text(encoding="utf-8", errors="ignore").lower()] == []
