from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from difficmh.analyzers.factory import analyzer_files, parse_analyzer
from jobs import analyze_dataset
from tests.difficmh.analyzers.onnx_model import mean_model
from tests.jobs import reading
from tests.test_layering import ROOT

OWN_MODEL = """
from dataclasses import dataclass

@dataclass
class Size:
    height: int
    width: int

class Sizes:
    name, row_type = "sizes", Size

    def __call__(self, images):
        return [Size(*image.shape[1:]) for image in images]

def make(device):
    return Sizes()
"""


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    reading.without_ray(monkeypatch)
    reading.with_fake_codec(monkeypatch, tmp_path / "cache")
    (tmp_path / "own_sizes.py").write_text(OWN_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda *arguments: analyze_dataset.main([str(argument) for argument in arguments])


def results(output: Path) -> list[dict[str, Any]]:
    return [each for path in sorted((output / "data").glob("*.parquet")) for each in pq.read_table(path).to_pylist()]


def test_a_model_of_the_user_s_own(main: Any, tmp_path: Path) -> None:
    url, output = reading.archive(tmp_path), tmp_path / "out"
    assert main("--archive", url, "--output", output, "--analyzer", "python:own_sizes:make") == 0
    assert results(output) == [
        {"key": each.key, "shard": each.shard, "height": 24, "width": 32}
        for each in sorted(reading.ROWS, key=lambda each: each.shard)
    ]
    described = json.loads((output / "results.json").read_text())
    assert described["settings"]["analyzer"] == "python:own_sizes:make"


def test_the_model_of_the_documentation(main: Any, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "archive.md").read_text(), re.DOTALL)
    (model,) = [block for block in blocks if "row_type" in block]
    (tmp_path / "brightness.py").write_text(model)
    asked = ("--analyzer", "python:brightness:Meter", "--output", tmp_path / "out")
    assert main("--archive", reading.archive(tmp_path), *asked) == 0
    assert all(0 <= row["darkest"] <= row["mean"] <= 1 for row in results(tmp_path / "out"))
    assert len(results(tmp_path / "out")) == len(reading.ROWS)


def test_an_onnx_model_with_a_query(main: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = tmp_path / "mean.onnx"
    model.write_bytes(mean_model())
    arguments = ("--archive", reading.archive(tmp_path), "--output", tmp_path / "out", "--analyzer", f"onnx:{model}")
    assert main(*arguments, "--where", "'tree' = ANY(tags)") == 0
    (answer,) = results(tmp_path / "out")
    assert (answer["key"], answer["mean_shape"], len(answer["mean"])) == ("../002", [1, 3], 3)


@pytest.mark.parametrize("changed", ["mean.onnx", "mean.json", "mean.onnx.data"])
def test_another_model_under_the_same_name_does_not_mix_in(
    main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: str
) -> None:
    pytest.importorskip("onnxruntime")
    model = tmp_path / "mean.onnx"
    model.write_bytes(mean_model())
    known = ("--archive", reading.archive(tmp_path), "--output", tmp_path / "out", "--analyzer", f"onnx:{model}")
    assert main(*known) == 0
    (tmp_path / changed).write_bytes(mean_model((1, 3, 9, 9)) if changed.endswith(".onnx") else b'{"range": 255}')
    assert main(*known) == 2
    assert f"{changed} changed" in capsys.readouterr().err
    assert main(*known, "--overwrite") == 0


def test_a_module_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "own_sizes.py").write_text(OWN_MODEL)
    words = ["--archive", reading.archive(tmp_path), "--output", "out", "--analyzer", "python:own_sizes:make"]
    command = [sys.executable, analyze_dataset.__file__, *words, "--dry-run"]
    shown = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60).stdout
    assert "2 to do" in shown


def test_a_changed_module_does_not_mix_in(
    main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "models"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('the driver imports no models')")
    (package / "own_sizes.py").write_text(OWN_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    places = ("--archive", reading.archive(tmp_path), "--output", tmp_path / "out")
    known = (*places, "--analyzer", "python:models.own_sizes:make")
    assert main(*known, "--dry-run") == 0
    first = analyzer_files(parse_analyzer("python:models.own_sizes:make"))
    (package / "own_sizes.py").write_text(f"{OWN_MODEL}\n# another version")
    second = analyzer_files(parse_analyzer("python:models.own_sizes:make"))
    assert first.keys() == second.keys() == {"own_sizes.py_sha256"}
    assert first != second


def test_answers_join_to_the_archive_in_sql(main: Any, tmp_path: Path) -> None:
    url, output = reading.archive(tmp_path), tmp_path / "out"
    assert main("--archive", url, "--output", output, "--analyzer", "python:own_sizes:make") == 0
    found = duckdb.sql(
        f"FROM '{url}/data/*.parquet' JOIN '{output}/data/*.parquet' AS answers USING (key, shard)"
        " SELECT key, tags, answers.width ORDER BY key"
    ).fetchall()
    assert found == [("../002", ["tree"], 32), ("000", ["car"], 32), ("001", [], 32)]


def test_a_second_run_has_nothing_to_do(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = ("--archive", reading.archive(tmp_path), "--output", tmp_path / "out", "--analyzer")
    assert main(*known, "python:own_sizes:make") == 0
    capsys.readouterr()
    assert main(*known, "python:own_sizes:make") == 0
    assert "2 shards done, 0 to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("analyzer", "message"),
    [
        ("resnet", "unknown analyzer"),
        ("onnx:/nowhere.onnx", "no ONNX model"),
        (f"onnx:{__file__}", "cannot load"),
        ("python:nowhere_at_all:make", "no module"),
        ("python:own_sizes:nothing", "nothing"),
    ],
)
def test_wrong_analyzers_are_status_2(
    main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], analyzer: str, message: str
) -> None:
    known = ("--archive", reading.archive(tmp_path), "--output", tmp_path / "out", "--analyzer")
    assert main(*known, analyzer) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert "AnalyzerError" not in error


def test_a_model_that_does_not_load_leaves_the_output_to_other_settings(
    main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_broken.py").write_text(OWN_MODEL.replace("return Sizes()", "raise RuntimeError('no weights')"))
    known = ("--archive", reading.archive(tmp_path), "--output", tmp_path / "out", "--analyzer")
    assert main(*known, "python:own_broken:make") == 2
    assert "no weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(*known, "python:own_sizes:make", "--mode", "full") == 0


@pytest.mark.ray
def test_on_ray(ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    reading.with_fake_codec(monkeypatch, tmp_path / "cache")
    model = tmp_path / "mean.onnx"
    model.write_bytes(mean_model())
    url, output = reading.archive(tmp_path, damaged=True), tmp_path / "out"
    arguments = ["--archive", url, "--output", str(output), "--analyzer", f"onnx:{model}", "--workers", "1"]
    assert analyze_dataset.main(arguments) == 1
    assert sorted(each["key"] for each in results(output)) == ["../002", "000", "001"]
    (rejects,) = (output / "rejects").iterdir()
    assert pq.read_table(rejects).to_pylist()[0]["data"] == b"FAKE"
