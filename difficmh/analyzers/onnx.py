"""Any ONNX network with one image input, its raw outputs stored as they come.

The network's input is a float image of one size: the static size that the model declares, or `size` of its options.
Options lie in a JSON file beside the model (`detector.onnx` → `detector.json`); every field may be left out:

    {"layout": "NCHW",            or "NHWC"
     "channels": "RGB",           or "BGR"
     "range": 1,                  value of white before mean and std: 1 or 255
     "mean": [0, 0, 0],           subtracted, per channel in the order of `channels`, in units of `range`
     "std": [1, 1, 1],            divided by
     "size": [352, 352],          height, width; needed where the model leaves them open
     "batch": false}              true: several images per call; every output's first dimension is then the batch

Images are stretched to that size (bilinear, antialiased); boxes in outputs are therefore relative to the whole image.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from difficmh.errors import AnalyzerError

log = logging.getLogger(__name__)

_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


@dataclass(frozen=True)
class OnnxOptions:
    """How the network wants its input; see the module's text. Raises AnalyzerError for values it does not know."""

    layout: str = "NCHW"
    channels: str = "RGB"
    range: float = 1
    mean: Sequence[float] = (0, 0, 0)
    std: Sequence[float] = (1, 1, 1)
    size: Sequence[int] | None = None
    batch: bool = False

    def __post_init__(self) -> None:
        checks = {
            "layout": self.layout in ("NCHW", "NHWC"),
            "channels": self.channels in ("RGB", "BGR"),
            "range": self.range in (1, 255),
            "mean": _is_numbers(self.mean, 3),
            "std": _is_numbers(self.std, 3) and all(self.std),
            "size": self.size is None or (_is_numbers(self.size, 2) and min(self.size) >= 1),
            "batch": isinstance(self.batch, bool),
        }
        name = next((name for name, is_right in checks.items() if not is_right), None)
        if name is not None:
            raise AnalyzerError(f"ONNX option {name} has an unknown value: {getattr(self, name)!r}")

    @classmethod
    def beside(cls, model: Path) -> OnnxOptions:
        """The options of a model; the defaults where there is no JSON beside it. Raises AnalyzerError."""
        path = model.with_suffix(".json")
        if not path.is_file():
            return cls()
        try:
            return cls(**json.loads(path.read_text()))
        except (TypeError, ValueError) as error:
            known = ", ".join(field.name for field in fields(cls))
            raise AnalyzerError(f"cannot use {path}: {error}; known options: {known}") from error


class OnnxAnalyzer:
    """One ONNX model under onnxruntime. Raises AnalyzerError where the model cannot be used as described above.

    The row has two fields per output: its values as a flat list of float32, and its `…_shape`.
    """

    def __init__(self, model: Path, device: str = "cpu", options: OnnxOptions | None = None) -> None:
        """`options` of None are read from beside the model."""
        self.name = f"onnx:{model.name}"
        self._options = options or OnnxOptions.beside(model)
        self._session = _open_session(model, device)
        self._input = _image_input(self._session)
        self._dtype = _INPUT_TYPES[self._input.type]
        self._size = self._input_size()
        self.row_type = _row_type(_output_names(self._session))

    def __call__(self, images: Sequence[Tensor]) -> list[Any]:
        """One `row_type` per image; images are `(3, H, W)` float in [0, 1] and may differ in size."""
        if not images:
            return []
        batch = np.stack([self._prepare(image) for image in images])  # (N, 3, H, W) or (N, H, W, 3)
        if not self._options.batch:
            return [self._row(self._run(batch[index : index + 1])) for index in range(len(batch))]
        outputs = self._run(batch)
        return [self._row([output[index : index + 1] for output in outputs]) for index in range(len(batch))]

    def _run(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        outputs = self._session.run(None, {self._input.name: batch})
        return [np.asarray(output) for output in outputs]

    def _row(self, outputs: Iterable[NDArray[Any]]) -> Any:
        values: list[Any] = []
        for output in outputs:
            values += [output.astype(np.float32).ravel(), list(output.shape)]
        return self.row_type(*values)

    def _prepare(self, image: Tensor) -> NDArray[Any]:
        options = self._options
        small = functional.interpolate(image[None].float(), self._size, mode="bilinear", antialias=True)[0]
        ordered = small.flip(0) if options.channels == "BGR" else small
        mean, std = (torch.tensor(values, device=small.device)[:, None, None] for values in (options.mean, options.std))
        pixels = ((ordered * options.range - mean) / std).cpu().numpy().astype(self._dtype)  # (3, H, W)
        return pixels if options.layout == "NCHW" else np.ascontiguousarray(pixels.transpose(1, 2, 0))

    def _input_size(self) -> tuple[int, int]:
        layout, shape = self._options.layout, self._input.shape
        declared = dict(zip(layout, shape, strict=True))
        if declared["C"] not in (3, None) and not isinstance(declared["C"], str):
            raise AnalyzerError(f"{self.name}: input {shape} has not 3 channels in layout {layout}")
        if isinstance(declared["N"], int) and (declared["N"] != 1 or self._options.batch):
            wanted = "an open batch dimension" if self._options.batch else "batch 1 or an open batch dimension"
            raise AnalyzerError(f"{self.name}: input {shape} should have {wanted}")
        height, width = self._options.size or (declared["H"], declared["W"])
        if not isinstance(height, int) or not isinstance(width, int):
            raise AnalyzerError(f"{self.name}: input {shape} has no static size; give 'size' in the options beside it")
        return height, width


def _is_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, (list, tuple)) and len(values) == count and all(isinstance(v, (int, float)) for v in values)
    )


def _open_session(model: Path, device: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise AnalyzerError("the analyzer 'onnx' needs a package: pip install onnxruntime") from error
    if not model.is_file():
        raise AnalyzerError(f"no ONNX model at {model}")
    providers = _providers(torch.device(device), onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # this worker's share; the default is all cores
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise AnalyzerError(f"onnxruntime cannot load {model}: {error}") from error


def _providers(device: torch.device, available: Sequence[str]) -> list[Any]:
    """Where onnxruntime computes: on the CPU, with a warning, where it was installed without CUDA."""
    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in available:
        log.warning("this onnxruntime has no CUDA and runs on the CPU: install onnxruntime-gpu in its place")
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": device.index or 0}), "CPUExecutionProvider"]


def _image_input(session: Any) -> Any:
    inputs = session.get_inputs()
    described = ", ".join(f"{each.name}: {each.type} {each.shape}" for each in inputs)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _INPUT_TYPES:
        raise AnalyzerError(f"an ONNX analyzer takes one float image (4 dimensions); this model takes {described}")
    return inputs[0]


def _output_names(session: Any) -> list[str]:
    outputs = session.get_outputs()
    for output in outputs:
        if not output.type.startswith("tensor(") or output.type == "tensor(string)":
            raise AnalyzerError(
                f"output {output.name} of the model is {output.type}; only tensors of numbers are stored"
            )
    return [output.name for output in outputs]


def _row_type(outputs: Sequence[str]) -> type:
    """A dataclass with two fields per output; names that are no identifiers are made into ones."""
    columns: list[tuple[str, Any]] = []
    for output in outputs:
        name = re.sub(r"\W", "_", output, flags=re.ASCII)
        name = name if name.isidentifier() else f"output_{name}"
        columns += [(name, list[np.float32]), (f"{name}_shape", list[int])]
    names = [name for name, _ in columns]
    if len(set(names)) != len(names) or {"key", "shard"} & set(names):
        raise AnalyzerError(f"the outputs {', '.join(outputs)} do not make distinct column names")
    return make_dataclass("OnnxRow", columns, frozen=True)
