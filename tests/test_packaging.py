"""What an install promises: every package is listed, every import is declared, every pin is a plain pin."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import Any

import pytest

from tests.test_layering import ROOT, imports, python_files

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = (ROOT / "constraints.txt").read_text().splitlines()


LOADED_ON_DEMAND = ("difficmh/analyzers/onnx.py", "difficmh/sd21/")
"""Files and folders that are only imported when a user asks for what they do; they may need an extra."""


def normal(requirement: str) -> str:
    """The normalised distribution name at the start of a requirement."""
    match = re.match(r"[\w.-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match.group()).lower()


REQUIRED = {normal(requirement) for requirement in PROJECT["project"]["dependencies"]}
OPTIONAL = {
    normal(requirement) for extra in PROJECT["project"]["optional-dependencies"].values() for requirement in extra
}


def test_pins_are_plain() -> None:
    assert [line for line in PINS if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[0-9][\w.!+]*", line)] == []


def test_every_requirement_is_pinned() -> None:
    assert (REQUIRED | OPTIONAL) - {normal(pin) for pin in PINS} == set()


@pytest.mark.parametrize("top", ["difficmh", "pipeline"])
def test_every_package_is_listed(top: str) -> None:
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / top).rglob("__init__.py")}
    listed = {name for name in PROJECT["tool"]["setuptools"]["packages"] if name.split(".")[0] == top}
    assert found == listed


def test_every_file_beside_the_code_is_listed() -> None:
    """An editable install finds them anyway; a wheel holds only what `package-data` names."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["difficmh"]
    listed = {path for pattern in patterns for path in (ROOT / "difficmh").glob(pattern) if path.is_file()}
    present = {path for top in ("difficmh", "pipeline") for path in (ROOT / top).rglob("*") if path.is_file()}
    beside = {path for path in present if path.suffix not in {".py", ".pyc"}}
    assert beside - listed == set()
    assert ROOT / "difficmh" / "capsules" / "lite" / "model.safetensors" in listed


@pytest.mark.parametrize("folder", ["difficmh", "pipeline", "jobs", "demo", "benchmarks", "tests"])
def test_every_import_is_declared(folder: str) -> None:
    """What loads with a module must be a plain dependency; imports inside a function or a `try` may be extras."""
    own = {"difficmh", "pipeline", "jobs", "demo", "benchmarks", "tests", "__future__"}
    everything = folder in {"demo", "benchmarks", "tests"}
    distributions = packages_distributions()
    wrong = []
    for path in python_files(folder):
        name = str(path.relative_to(ROOT))
        for found in imports(path):
            top = found.module.split(".")[0]
            if top in own or top in sys.stdlib_module_names:
                continue
            names = {normal(name) for name in distributions.get(top, [top])}
            needed = not name.startswith(LOADED_ON_DEMAND) and found.at_load and not found.optional and not everything
            declared = REQUIRED if needed else REQUIRED | OPTIONAL
            if not names & declared:
                wrong.append(f"{name}:{found.line} imports {top}, which pyproject.toml does not declare")
    assert not wrong, "\n".join(wrong)
