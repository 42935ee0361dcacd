from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")

from difficmh.analyzers.onnx import OnnxAnalyzer, OnnxOptions, _providers
from difficmh.errors import AnalyzerError
from tests.contracts.analyzer import AnalyzerContract
from tests.difficmh.analyzers.onnx_model import mean_model

DETECTOR = Path(__file__).parents[4] / "shared" / "models" / "fastestdet" / "FastestDet.onnx"
COLOUR = torch.tensor([0.2, 0.4, 0.8])[:, None, None].expand(3, 20, 30)


def write(folder: Path, model: bytes, **options: object) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model)
    if options:
        path.with_suffix(".json").write_text(json.dumps(options))
    return path


class TestMeanModel(AnalyzerContract):
    @pytest.fixture
    def analyzer(self, tmp_path: Path) -> OnnxAnalyzer:
        return OnnxAnalyzer(write(tmp_path, mean_model()))


class TestBatchedMeanModel(AnalyzerContract):
    @pytest.fixture
    def analyzer(self, tmp_path: Path) -> OnnxAnalyzer:
        return OnnxAnalyzer(write(tmp_path, mean_model(("N", 3, "H", "W")), batch=True, size=[16, 12]))


def test_values_and_shape_of_the_output(tmp_path: Path) -> None:
    (row,) = OnnxAnalyzer(write(tmp_path, mean_model()))([COLOUR])
    np.testing.assert_allclose(row.mean, [0.2, 0.4, 0.8], atol=1e-6)
    assert row.mean_shape == [1, 3]


def test_a_session_keeps_to_the_threads_of_its_process(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        analyzer = OnnxAnalyzer(write(tmp_path, mean_model()))
    finally:
        torch.set_num_threads(before)
    assert analyzer._session.get_session_options().intra_op_num_threads == 3


def test_a_gpu_is_used_where_onnxruntime_can(caplog: pytest.LogCaptureFixture) -> None:
    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    assert _providers(torch.device("cuda:1"), [cuda, cpu]) == [(cuda, {"device_id": 1}), cpu]
    assert _providers(torch.device("cpu"), [cuda, cpu]) == [cpu]
    assert not caplog.records
    assert _providers(torch.device("cuda"), [cpu]) == [cpu]
    assert "onnxruntime-gpu" in caplog.text


def test_options_reorder_scale_and_shift(tmp_path: Path) -> None:
    options = {"channels": "BGR", "range": 255, "mean": [4, 2, 1], "std": [10, 20, 50]}
    (row,) = OnnxAnalyzer(write(tmp_path, mean_model(), **options))([COLOUR])
    np.testing.assert_allclose(row.mean, [(204 - 4) / 10, (102 - 2) / 20, (51 - 1) / 50], rtol=1e-5)


def test_channels_last(tmp_path: Path) -> None:
    model = mean_model((1, 8, 6, 3), axes=(1, 2))
    (row,) = OnnxAnalyzer(write(tmp_path, model, layout="NHWC"))([COLOUR])
    np.testing.assert_allclose(row.mean, [0.2, 0.4, 0.8], atol=1e-6)


def test_numeric_output_names_become_identifiers(tmp_path: Path) -> None:
    (row,) = OnnxAnalyzer(write(tmp_path, mean_model(output="758/raw")))([COLOUR])
    assert row.output_758_raw_shape == [1, 3]


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 3, "H", "W"), {}, "size"),
        ((1, 4, 8, 8), {}, "3 channels"),
        ((4, 3, 8, 8), {}, "batch 1"),
        ((1, 3, 8, 8), {"batch": True}, "open batch"),
        ((1, 3, 8), {}, "4 dimensions"),
        ((1, 3, 8, 8), {"colour": "RGB"}, "known options: layout"),
        ((1, 3, 8, 8), {"layout": "CHWN"}, "layout"),
        ((1, 3, 8, 8), {"std": [1, 0, 1]}, "std"),
        ((1, 3, 8, 8), {"size": [0, 8]}, "size"),
    ],
)
def test_unusable_models_and_options(
    tmp_path: Path, shape: tuple[int | str, ...], options: dict[str, object], message: str
) -> None:
    axes = (1,) if len(shape) == 3 else (2, 3)
    with pytest.raises(AnalyzerError, match=message):
        OnnxAnalyzer(write(tmp_path, mean_model(shape, axes=axes), **options))


def test_column_names_of_the_table_are_taken(tmp_path: Path) -> None:
    with pytest.raises(AnalyzerError, match="distinct"):
        OnnxAnalyzer(write(tmp_path, mean_model(output="key")))


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(AnalyzerError, match="no ONNX model"):
        OnnxAnalyzer(tmp_path / "none.onnx")
    with pytest.raises(AnalyzerError, match="cannot load"):
        OnnxAnalyzer(write(tmp_path, b"no protobuf at all"))
    broken = write(tmp_path, mean_model())
    broken.with_suffix(".json").write_text("{")
    with pytest.raises(AnalyzerError, match=r"cannot use .*model\.json"):
        OnnxOptions.beside(broken)


@pytest.mark.skipif(not DETECTOR.is_file(), reason="the shared detector is not here")
def test_a_real_detector() -> None:
    (row,) = OnnxAnalyzer(DETECTOR)([COLOUR])
    assert row.output_758_shape == [1, 85, 22, 22]
    assert len(row.output_758) == 85 * 22 * 22
