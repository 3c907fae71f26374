"""The changes of a release, for its page; fails if the tag, the version and the changes do not fit.

Usage: python tools/release_notes.py v1.2.3
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(tag: str, project: str, changes: str, citation: str) -> str:
    """The section of CHANGELOG.md that belongs to a tag.

    Args:
        tag: "v" and a version.
        project: pyproject.toml.
        changes: CHANGELOG.md.
        citation: CITATION.cff.

    Raises:
        ValueError: If something does not fit; the message says what.
    """
    if not re.fullmatch(r"v\d+\.\d+\.\d+", tag):
        raise ValueError(f"a release's tag is v1.2.3, got {tag}")
    version = tag[1:]
    found = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    if found is None or found[1] != version:
        raise ValueError(f"pyproject.toml has {found and found[0]}, the tag is {tag}")
    if not re.search(rf"^version: {re.escape(version)}$", citation, re.MULTILINE):
        raise ValueError(f"CITATION.cff has no line: version: {version}")
    sections = re.split(r"^## ", changes, flags=re.MULTILINE)
    for section in sections[1:]:
        heading, _, text = section.partition("\n")
        if re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", heading) and text.strip():
            return text.strip() + "\n"
    raise ValueError(f"CHANGELOG.md has no section: ## [{version}] - YYYY-MM-DD")


def main() -> None:
    """Print the section, or say what does not fit."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    names = ("pyproject.toml", "CHANGELOG.md", "CITATION.cff")
    project, changes, citation = ((ROOT / name).read_text(encoding="utf-8") for name in names)
    try:
        sys.stdout.write(notes(sys.argv[1], project, changes, citation))
    except ValueError as error:
        sys.exit(f"release_notes: {error}")


if __name__ == "__main__":
    main()
