"""What the documents name is there: files, folders and make targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import codec, pipeline
from tests.test_layering import ROOT, python_files

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


def test_architecture_names_every_module() -> None:
    """By its path, or by the folder it lies in where that is a part of its own, such as `difficmh/training/`."""
    named = set(re.findall(r"`([\w./]+)`", (ROOT / "docs" / "architecture.md").read_text()))
    modules = [path.relative_to(ROOT) for folder in ("jobs", "pipeline", "difficmh") for path in python_files(folder)]
    missing = [
        path.as_posix()
        for path in modules
        if path.name != "__init__.py"
        and path.as_posix() not in named
        and (len(path.parts) < 3 or f"{path.parent.as_posix()}/" not in named)
    ]
    assert missing == []


def test_benchmarks_page_states_the_targets_of_the_code() -> None:
    rows = [line.replace("`", "").split(" | ") for line in (ROOT / "docs" / "benchmarks.md").read_text().splitlines()]
    stated = {row[0].removeprefix("| "): row[-1].removesuffix(" |") for row in rows if len(row) == 3}
    wanted = {name: f"≤ {target}" for name, (_, _, target) in codec.RATIOS.items()}
    wanted |= {
        "pipeline / bare loop": f"≥ {pipeline.TARGETS['pipeline / bare loop']}",
        "worker, MiB": f"≤ {pipeline.TARGETS['worker_mib']}",
        "driver, MiB": f"≤ {pipeline.TARGETS['driver_mib']}",
    }
    assert {name: stated.get(name) for name in wanted} == wanted
