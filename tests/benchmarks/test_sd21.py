"""The benchmark of the paper's model, on small networks: what it runs, what it reports, what it needs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from benchmarks import sd21 as benchmark
from benchmarks.sd21_entropy import entropy_costs
from benchmarks.sd21_networks import SIZES, Networks, conditioning, encode, random_networks, read_guide, two_calls
from difficmh import fixed_point
from difficmh.sd21 import exact_layers
from difficmh.sd21.denoiser import noise_model
from difficmh.surroundings import Tf32Settings, in_full_float32
from tests.test_layering import ROOT, imports

CPU = torch.device("cpu")
SMALL = [
    "--device",
    "cpu",
    "--networks",
    "small",
    "--size",
    "64",
    "--batch-sizes",
    "1",
    "--steps",
    "1",
    "--rounds",
    "1",
]
SETTING = benchmark.parse_arguments(SMALL)


@pytest.fixture(scope="module")
def networks() -> Iterator[Networks]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield random_networks(SIZES["small"], CPU)


def test_every_part_runs_at_every_batch_and_dtype(networks: Networks) -> None:
    setting = replace(SETTING, parts=("preview", "step", "decode"))
    found = list(benchmark.measure_all(networks, setting))
    networks.convert(torch.float32)
    assert [(m.part, m.dtype, m.batch) for m in found] == [
        ("preview", "float32", 1),
        ("step", "float32", 1),
        ("decode", "float32", 1),
        ("step", "bfloat16", 1),
        ("decode", "bfloat16", 1),
    ]
    for each in found:
        assert each.seconds is not None
        assert each.peak_gb is not None
        assert each.peak_gb > 0.1


def test_streams_carry_symbols_and_guides_have_the_size_of_latents(networks: Networks) -> None:
    streams = encode(networks, torch.rand(2, 3, 64, 64))
    assert min(len(stream.data) for stream in streams) > 20
    assert read_guide(networks, streams, (1, 1)).shape == (2, 4, 8, 8)


def test_symbols_that_are_decoded_wrongly_end_the_run(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    def inexact(total: Tensor, bits: int) -> Tensor:
        found = exact(total, bits)
        found.view(-1)[::97].add_(fixed_point.ONE)
        return found

    streams, exact = encode(networks, torch.rand(2, 3, 128, 128)), exact_layers.rescale
    monkeypatch.setattr(exact_layers, "rescale", inexact)
    monkeypatch.setattr(fixed_point, "rescale", inexact)
    with pytest.raises(RuntimeError, match="not those that were encoded"):
        read_guide(networks, streams, (2, 2))


def test_both_loops_estimate_the_same_noise(networks: Networks) -> None:
    guide = torch.randn(1, 4, 8, 8)
    torch.nn.init.normal_(networks.denoiser.control.mid_out.weight, std=0.1)
    given = conditioning(networks, guide)
    one, other = (make(networks.denoiser, given)(guide, 500) for make in (two_calls, noise_model))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="empty text"):
        two_calls(networks.denoiser, replace(given, unconditional=None, scale=1.0))


def test_loops_are_compared_from_guide_to_picture(networks: Networks) -> None:
    loops = benchmark.compare_loops(networks, replace(SETTING, dtypes=("float32",)))
    assert (loops.batch, loops.dtype) == (1, "float32")
    assert loops.ratio == pytest.approx(loops.batched / loops.one_by_one, rel=0.05)


def test_entropy_costs_name_what_the_decision_quotes(networks: Networks) -> None:
    costs = entropy_costs(networks.lfgcm, 64, 1)
    assert 0 < costs.integer_megabytes < 20
    assert 30 < costs.largest_sum_bits < 52
    assert costs.float_seconds > 0
    assert costs.exact_seconds > 0


def test_memory_that_runs_out_is_a_result(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(benchmark, "reconstruct_one_by_one", exhausted)
    assert benchmark.loops_that_fit(networks, SETTING) is None

    found = benchmark.measure("decode", exhausted, SETTING, "float32", 8)
    assert (found.seconds, found.peak_gb) == (None, None)

    monkeypatch.setattr(benchmark, "encode", exhausted)  # what the timed parts start from
    found_all = list(benchmark.measure_all(networks, SETTING))
    assert {measurement.part for measurement in found_all} == set(SETTING.parts) & set(benchmark.TIMED)
    assert {measurement.seconds for measurement in found_all} == {None}


def test_what_is_measured_is_told_at_once_and_loops_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "entropy_costs", stopped)
    with pytest.raises(KeyboardInterrupt):
        benchmark.main([*SMALL, "--dtypes", "float32", "--parts", "entropy", "step", "noise", "loops"])
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [each.get("part", *each.keys() & {"ratio"}) for each in told[1:]] == ["ratio", "step", "noise"]
    assert told[1]["one_by_one"] == pytest.approx(told[0]["one_by_one"], abs=1e-4)


def test_float32_is_measured_without_tf32_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "in_full_float32", lambda _: in_full_float32(torch.device("cuda")))
    settings = []
    for choice in ([], ["--tf32"]):
        benchmark.main([*SMALL, "--parts", "noise", *choice])
        report = json.loads(capsys.readouterr().out)
        assert report["setting"]["tf32"] is bool(choice)
        settings.append(report["tf32"])
    assert (settings[0]["convolutions"], settings[0]["products"]) == ("ieee", "ieee")
    assert settings[1] == asdict(Tf32Settings.read())


def test_compiled_for_each_batch_size_apart(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(type(networks.denoiser), "compile", lambda _, **options: asked.append(options))
    for choice in ([], ["--compiled"], ["--compiled", "reduce-overhead", "--tf32"]):
        benchmark.prepare(networks, benchmark.parse_arguments([*SMALL, *choice]), "float32")
    assert asked == [{"mode": mode, "dynamic": False} for mode in benchmark.COMPILERS]


def test_summary_sets_ratio_and_memory_beside_their_targets() -> None:
    decode = benchmark.Measurement("decode", "bfloat16", 1, 2.0, 0.5, 6.5)
    other = replace(decode, dtype="float32", peak_gb=12.0)
    report = benchmark.summary(SETTING, [other, decode], None, benchmark.Loops(0.1, 0.9, 9.0, 8, "bfloat16"))
    assert report["targets"] == {
        "batched / one by one": {"measured": 9.0, "target": 8.0},
        "decode, GB": {"measured": 6.5, "target": 8.0},
    }
    assert json.loads(json.dumps(report))["entropy"] is None


@pytest.mark.parametrize("wrong", [["--size", "65"], ["--steps", "0"], ["--batch-sizes", "1", "0"], ["--parts", "all"]])
def test_impossible_settings_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.parse_arguments(wrong)
    assert "error" in capsys.readouterr().err


def test_the_benchmark_needs_only_what_a_bare_gpu_machine_has() -> None:
    """No ray, no pyarrow, no fsspec, no timm: whatever loads with it, and with what that loads."""
    waiting, seen, foreign = [ROOT / "benchmarks" / "sd21.py"], set(), set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for found in imports(path):
            top = found.module.split(".")[0]
            inside = ROOT.joinpath(*found.module.split("."))
            if found.at_load and top in ("benchmarks", "difficmh"):
                places = (inside.with_suffix(".py"), inside / "__init__.py", inside.parent / "__init__.py")
                waiting += [place for place in places if place.is_file() and place not in seen]
            elif found.at_load and top not in sys.stdlib_module_names:
                foreign.add(top)
    assert foreign == {"torch", "numpy", "diffusers", "transformers", "safetensors"}
