"""The notes of a release: what does not fit stops it before anything is built."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = '[project]\nname = "csm-ggml"\nversion = "1.2.3"\n'
CHANGES = """# Changelog

## [Unreleased]

## [1.2.3] - 2026-12-01

- Better.

## [1.2.2] - 2026-11-01

- Good.
"""
CITATION = "cff-version: 1.2.0\nversion: 1.2.3\n"


@pytest.fixture(scope="module")
def notes() -> Any:
    return runpy.run_path(str(ROOT / "tools" / "release_notes.py"))["notes"]


def test_the_section_of_the_tag(notes: Any) -> None:
    assert notes("v1.2.3", PROJECT, CHANGES, CITATION) == "- Better.\n"


@pytest.mark.parametrize(
    ("tag", "changed", "message"),
    [
        ("1.2.3", {}, "a release's tag is v1.2.3, got 1.2.3"),
        ("v1.2.2", {}, "the tag is v1.2.2"),
        ("v1.2.3", {"citation": "version: 1.2.2\n"}, "CITATION.cff"),
        ("v1.2.3", {"changes": CHANGES.replace(" - 2026-12-01", "")}, "CHANGELOG.md"),
        ("v1.2.3", {"changes": CHANGES.replace("- Better.\n", "")}, "CHANGELOG.md"),
    ],
)
def test_what_does_not_fit(notes: Any, tag: str, changed: dict[str, str], message: str) -> None:
    files = {"project": PROJECT, "changes": CHANGES, "citation": CITATION} | changed
    with pytest.raises(ValueError, match=re.escape(message)):
        notes(tag, **files)


def test_the_files_agree_on_the_version() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    [version] = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in citation
