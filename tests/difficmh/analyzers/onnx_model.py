"""A tiny ONNX model written byte by byte, so that the tests need no package that makes such files.

The model is `output = mean of the input over two dimensions`; field numbers are those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Sequence

FLOAT = 1
INT = 2
INTS = 7


def mean_model(
    shape: Sequence[int | str] = (1, 3, 8, 8),
    *,
    axes: Sequence[int] = (2, 3),
    output: str = "mean",
    element: int = FLOAT,
) -> bytes:
    """Serialised ModelProto: opset 13, `ReduceMean(axes)` without kept dimensions."""
    kept = [size for axis, size in enumerate(shape) if axis not in axes]
    attributes = [
        _text(1, "axes") + b"".join(_number(8, axis) for axis in axes) + _number(20, INTS),
        _text(1, "keepdims") + _number(3, 0) + _number(20, INT),
    ]
    node = _text(1, "image") + _text(2, output) + _text(4, "ReduceMean")
    node += b"".join(_field(5, attribute) for attribute in attributes)
    graph = _field(1, node) + _text(2, "graph")
    graph += _field(11, _value("image", shape, element)) + _field(12, _value(output, kept, element))
    return _number(1, 8) + _field(7, graph) + _field(8, _text(1, "") + _number(2, 13))


def _value(name: str, shape: Sequence[int | str], element: int) -> bytes:
    sizes = (_text(2, size) if isinstance(size, str) else _number(1, size) for size in shape)
    tensor = _number(1, element) + _field(2, b"".join(_field(1, size) for size in sizes))
    return _text(1, name) + _field(2, _field(1, tensor))


def _varint(value: int) -> bytes:
    head = []
    while value >= 128:
        head.append(value & 127 | 128)
        value >>= 7
    return bytes([*head, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _field(field, value.encode())
