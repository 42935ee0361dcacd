"""What the documents name is there: files, folders and make targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_layering import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_exist(document: Path) -> None:
    text = document.read_text()
    named = set(re.findall(r"`((?:difficmh|pipeline|jobs|demo|benchmarks|tests|docs)/[\w./-]*)`", text))
    linked = set(re.findall(r"\]\(([^)#:]+)\)", text))
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [name for name in linked if not (document.parent / name).exists()]
    assert missing == []


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    assert [
        path.name for path in folder.glob("*.md") if path.name != "README.md" and f"({path.name})" not in index
    ] == []


def test_named_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"^ {4}make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named
    assert named <= targets
