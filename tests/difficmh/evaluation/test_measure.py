"""The pass over pictures: what is measured, what is kept, and what cannot be asked for."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from difficmh.errors import ImageError
from difficmh.evaluation import measure
from difficmh.evaluation.crops import detailed_window
from difficmh.evaluation.graders import Picture
from difficmh.evaluation.measure import Evaluator, Plan, load_grader
from difficmh.evaluation.worker import EncodedPicture, Worker, in_order, measured_here, watched
from tests.difficmh.evaluation.pictures import Rounding, measurement
from tests.difficmh.test_metrics import photo


def encoded(name: str, image: np.ndarray) -> EncodedPicture:
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, "PNG")
    return EncodedPicture(name, file.getvalue())


@pytest.fixture
def evaluator(monkeypatch: pytest.MonkeyPatch) -> Evaluator:
    monkeypatch.setattr(measure, "load_contestants", lambda codecs, device: [Rounding()])
    return Evaluator(Plan(("rounding",), crop_rate=24.0))


def test_measurements_count_real_bytes_and_measure_the_decoded_image(evaluator: Evaluator) -> None:
    picture = Picture("flat", np.full((10, 20, 3), 0b10110000, np.uint8))
    coarse, fine = evaluator.measure(evaluator.examine(picture), evaluator.contestants[0])
    assert (coarse.stored_bytes, coarse.image, coarse.height, coarse.width) == (2 + 600 + 2, "flat", 10, 20)
    assert coarse.bits_per_pixel == 8 * 604 / 200
    assert coarse.evidence["psnr"] == pytest.approx(20 * np.log10(255 / 0b00110000), abs=1e-3)
    assert fine.evidence["psnr"] == 100
    assert set(fine.evidence) == {"psnr", "ms_ssim_db"} == {metric.name for metric in evaluator.metrics}
    assert coarse.compress_seconds >= 0
    assert evaluator.points == 2


def test_what_a_codec_loads_at_its_first_use_is_no_part_of_a_pictures_time(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lazy(Rounding):
        def compress(self, image: np.ndarray, quality: int) -> bytes:
            clock.append(clock[-1] + (1 if len(clock) > 1 else 100))
            return super().compress(image, quality)

    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[-1])
    examined = evaluator.examine(Picture("waves", photo(30, 40)))
    for name in ("first", "second"):
        lazy = Lazy(name)
        clock[:] = [0.0]
        found = [*evaluator.measure(examined, lazy), *evaluator.measure(examined, lazy)]
        assert [one.compress_seconds for one in found] == [1.0] * 4
        assert clock[-1] == 104, "each codec is warmed up once"


def test_a_worker_reads_relative_paths_where_the_job_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(measure, "load_contestants", lambda codecs, device: seen.append(Path.cwd()) or [Rounding()])
    monkeypatch.chdir("/")
    for folder in (str(tmp_path), "/nowhere", None):
        Worker(Plan(("rounding",)), folder=folder)
    assert seen == [tmp_path] * 3, "a folder that is not there is no other"


def test_crops_are_kept_near_the_rate_only(evaluator: Evaluator) -> None:
    examined = evaluator.examine(Picture("waves", photo(30, 40)))
    coarse, _ = evaluator.measure(examined, evaluator.contestants[0])
    assert coarse.crop is not None
    assert coarse.original_crop is examined.crop
    with PillowImage.open(io.BytesIO(coarse.crop)) as crop:
        assert crop.size == (40, 30)
    far = Evaluator(Plan(("rounding",), crop_rate=0.1))
    assert next(far.measure(far.examine(Picture("waves", photo(30, 40))), far.contestants[0])).crop is None


def test_the_window_has_the_detail() -> None:
    image = np.full((500, 700, 3), 128, np.uint8)
    image[300:450, 480:640] = np.random.default_rng(0).integers(0, 256, (150, 160, 3))
    rows, columns = detailed_window(image)
    assert rows.start <= 300
    assert rows.stop >= 450
    assert columns.start <= 480
    assert columns.stop >= 640
    assert detailed_window(photo(5, 300))[0] == slice(0, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beauty", "no measure 'beauty'; there are ssimulacra2"),
        ("detection", "no measure 'detection'"),
        ("detection:", "no measure 'detection:'"),
        ("detection:none.onnx", "no ONNX model at none.onnx"),
        ("analyzer:none", "unknown analyzer 'none'"),
        ("tags:nowhere", "no codec 'nowhere'"),
    ],
)
def test_measures_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_grader(text, Plan(()))


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_perceptual_measures_download_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("difficmh.evaluation.perceptual.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=f"the measure {name} needs a package: pip install"):
        load_grader(name, Plan(()))
    monkeypatch.setattr("difficmh.evaluation.perceptual.find_spec", lambda package: object())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "nowhere")
    with pytest.raises(ValueError, match=f"the measure {name} needs weights that are not on this machine: nowhere"):
        load_grader(name, Plan(()))


def test_a_measure_is_asked_for_once() -> None:
    pytest.importorskip("ssimulacra2")
    with pytest.raises(ValueError, match="more than once"):
        Evaluator(Plan(("jpeg",), ("ssimulacra2", "ssimulacra2")))


def test_a_worker_looks_at_an_original_once(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    examine = evaluator.examine
    monkeypatch.setattr(evaluator, "examine", lambda picture: looked.append(picture.name) or examine(picture))
    worker = Worker(evaluator.plan, evaluator)
    first, second = encoded("first", photo(20, 30)), encoded("second", photo(30, 20))
    found = [worker(picture, 0) for picture in (first, first, second)]
    assert looked == ["first", "second"]
    assert [one.quality for one in found[2]] == [2, 4]
    # Evidence travels between processes.
    assert pickle.loads(pickle.dumps(found)) == found


def test_files_that_are_no_pictures_are_named(evaluator: Evaluator) -> None:
    with pytest.raises(ImageError, match=r"broken\.jpg: "):
        list(measured_here([EncodedPicture("broken.jpg", b"none")], evaluator.plan, evaluator))


def test_a_codec_that_refuses_a_picture_is_named_with_it() -> None:
    evaluator = Evaluator(Plan(("webp",)))
    with pytest.raises(ValueError, match=r"long by webp at quality 0: .*16383"):
        Worker(evaluator.plan, evaluator)(encoded("long", np.zeros((8, 16400, 3), np.uint8)), 0)


def test_progress_in_plain_lines(evaluator: Evaluator, capsys: pytest.CaptureFixture[str]) -> None:
    results = measured_here([encoded("a", photo(20, 30)), encoded("b", photo(20, 30))], evaluator.plan, evaluator)
    assert len(list(watched(results, 4))) == 4
    assert capsys.readouterr().err == "4 of 4 decoded pictures measured, 0.0 min left: b by rounding\n"


def test_order_does_not_depend_on_who_was_first() -> None:
    found = [measurement("y", 2, "b", 1), measurement("x", 1, "b", 1), measurement("y", 2, "a", 1)]
    assert [(one.codec, one.image) for one in in_order(found, ["a", "b"], ["x", "y"])] == [
        ("x", "b"),
        ("y", "a"),
        ("y", "b"),
    ]
