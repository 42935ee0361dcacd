"""The rules of the tree: who may import whom, and how large a file or function may grow.

A failure names file and line; the fix is nearly always to move code, not to widen a rule.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE_FOLDERS = ("difficmh", "pipeline", "jobs", "demo", "benchmarks", "tests")
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ".html", ""}
MACHINE_PATH = re.compile(r"(?<![\w.:/$}<-])/(?:home|root|work|Users)/\w")

MAX_FILE_LINES = 300
MAX_LINES_ELSEWHERE = {"jobs": 80, "tests": 450}
MAX_FUNCTION_LINES = 40
MAX_PARAMETERS = 6


@dataclass(frozen=True)
class Import:
    """One imported module.

    `at_load` tells that merely importing the file executes it, `optional` that the file copes with its absence.
    """

    module: str
    line: int
    at_load: bool
    optional: bool = False


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def imports(path: Path) -> list[Import]:
    return list(_imports(ast.parse(path.read_text()), path, at_load=True, optional=False))


def _imports(node: ast.AST, path: Path, at_load: bool, optional: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, at_load, optional) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (Import(name, child.lineno, at_load, optional) for name in _from_names(child, path))
        else:
            deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or _is_typing_only(child)
            yield from _imports(child, path, at_load and not deferred, optional or _expects_absence(child))


def _from_names(node: ast.ImportFrom, path: Path) -> Iterator[str]:
    """`from a import b` may import the module `a.b`, so both names count."""
    package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
    base = ".".join((*package, *([node.module] if node.module else [])))
    yield base
    yield from (f"{base}.{alias.name}" for alias in node.names)


def _is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _expects_absence(node: ast.AST) -> bool:
    return isinstance(node, ast.Try) and any("ImportError" in ast.unparse(h.type) for h in node.handlers if h.type)


def belongs(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("pipeline", ("difficmh", "jobs", "demo", "benchmarks", "tests")),
        ("difficmh", ("pipeline", "jobs", "demo", "benchmarks", "tests", "ray", "pyarrow", "fsspec", "s3fs", "duckdb")),
        ("jobs", ("demo", "benchmarks", "tests")),
    ],
)
def test_layers_do_not_import_each_other(folder: str, forbidden: tuple[str, ...]) -> None:
    wrong = [
        f"{place(path, found.line)} imports {found.module}"
        for path in python_files(folder)
        for found in imports(path)
        if belongs(found.module, forbidden)
    ]
    assert not wrong, f"{folder}/ must not import {', '.join(forbidden)}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("folder", ["pipeline", "jobs"])
def test_drivers_load_without_torch(folder: str) -> None:
    """The process that only hands out shards stays small: networks are imported where they run."""
    heavy = ("torch", "torchvision", "timm", "compressai", "difficmh.codec")
    wrong = [
        f"{place(path, found.line)} imports {found.module} when it is loaded; import it inside the function"
        for path in python_files(folder)
        for found in imports(path)
        if found.at_load and belongs(found.module, heavy)
    ]
    assert not wrong, "\n".join(wrong)


def test_importing_the_packages_loads_no_torch() -> None:
    """The same, for real: what the files above import may itself load torch."""
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in python_files("pipeline")]
    names = ", ".join(["difficmh", *(module.removesuffix(".__init__") for module in modules)])
    program = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "importing these loads torch: " + names


def test_only_one_module_knows_fsspec() -> None:
    wrong = [
        f"{place(path, found.line)} imports {found.module}; go through pipeline.storage or pipeline.file_systems"
        for folder in ("pipeline", "jobs", "demo")
        for path in python_files(folder)
        for found in imports(path)
        if belongs(found.module, ("fsspec", "s3fs")) and path.relative_to(ROOT) != Path("pipeline/file_systems.py")
    ]
    assert not wrong, "\n".join(wrong)


def test_only_jobs_start_ray() -> None:
    wrong = [
        f"{place(path, node.lineno)} starts Ray; only jobs/ may"
        for folder in ("difficmh", "pipeline", "demo")
        for path in python_files(folder)
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) == "ray.init")
        or (isinstance(node, ast.ImportFrom) and node.module == "ray" and any(a.name == "init" for a in node.names))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", CODE_FOLDERS)
def test_files_stay_short(folder: str) -> None:
    limit = MAX_LINES_ELSEWHERE.get(folder, MAX_FILE_LINES)
    counts = {path.relative_to(ROOT): code_lines(path) for path in python_files(folder)}
    wrong = [
        f"{path}: {count} lines, at most {limit}; split it by topic" for path, count in counts.items() if count > limit
    ]
    assert not wrong, "\n".join(wrong)


def code_lines(path: Path) -> int:
    """Lines of a file without the docstring at its top."""
    text = path.read_text()
    return len(text.splitlines()) - docstring_lines(ast.parse(text))


def docstring_lines(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    if ast.get_docstring(node) is None:
        return 0
    return (node.body[0].end_lineno or 0) - node.body[0].lineno + 1


@pytest.mark.parametrize("folder", CODE_FOLDERS)
def test_functions_stay_short(folder: str) -> None:
    wrong = []
    for path, function in functions(folder):
        lines = body_lines(function)
        if lines > MAX_FUNCTION_LINES:
            wrong.append(f"{place(path, function.lineno)} {function.name}: {lines} lines, at most {MAX_FUNCTION_LINES}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", [folder for folder in CODE_FOLDERS if folder != "tests"])
def test_parameter_lists_stay_short(folder: str) -> None:
    """Fixtures are parameters too, hence not for tests."""
    wrong = []
    for path, function in functions(folder):
        count = parameter_count(function)
        if count > MAX_PARAMETERS:
            wrong.append(
                f"{place(path, function.lineno)} {function.name}: {count} parameters, at most {MAX_PARAMETERS}; "
                "put what belongs together into a frozen dataclass"
            )
    assert not wrong, "\n".join(wrong)


def functions(folder: str) -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in python_files(folder):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    return total - docstring_lines(function)


def parameter_count(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_no_paths_of_one_machine() -> None:
    wrong = [
        f"{place(path, number)}: {line.strip()[:80]}"
        for path in text_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not wrong, "absolute paths that exist on one machine only:\n" + "\n".join(wrong)


def text_files() -> list[Path]:
    roots = [ROOT / folder for folder in (*CODE_FOLDERS, "docs", ".ci")]
    nested = [path for root in roots for path in root.rglob("*")]
    candidates = [path for path in (*ROOT.iterdir(), *nested) if path.is_file() and "__pycache__" not in path.parts]
    return [path for path in candidates if path.suffix in TEXT_SUFFIXES and not path.name.startswith(".git")]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch", [Import("torch", 1, True)]),
        ("def f():\n    import torch", [Import("torch", 2, False)]),
        ("if TYPE_CHECKING:\n    import torch", [Import("torch", 2, False)]),
        ("try:\n    import torch\nexcept ImportError:\n    pass", [Import("torch", 2, True, True)]),
        ("class A:\n    import torch", [Import("torch", 2, True)]),
        ("from . import codec", [Import("difficmh", 1, True), Import("difficmh.codec", 1, True)]),
        ("from .taggers import efficientnet", [Import("difficmh.taggers", 1, True)]),
    ],
)
def test_imports_are_found_where_they_hide(source: str, expected: list[Import]) -> None:
    probe = ROOT / "difficmh" / "probe.py"
    assert list(_imports(ast.parse(source), probe, at_load=True, optional=False))[: len(expected)] == expected
