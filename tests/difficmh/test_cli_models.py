"""`difficmh models fetch` from files in the official layout to a capsule, without a network."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import difficmh
from difficmh import cli_models
from difficmh.capsule import capsule_names, capsule_path, read_config, read_manifest, verify
from difficmh.cli import main
from difficmh.sd21 import plan, preset
from difficmh.sd21.checkpoint import PARTS, TAGGER_PREFIX, without_prefix
from difficmh.sd21.config import Sd21Config
from difficmh.sd21.loading import load_part
from difficmh.sd21.tables import capsule_tables, load_official_tables
from difficmh.sd21.text import load_tokenizer
from difficmh.taggers.ram_tags import TagList
from difficmh.zoo import load_tables
from tests.difficmh.sd21.released_files import LICENCES, released_lfgcm, released_state, write_released
from tests.difficmh.sd21.tiny_sd21 import CONFIG
from tests.difficmh.sd21.tiny_tokenizer import write_tokenizer
from tests.difficmh.taggers.small_ram import TAGS


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks, small files, a models folder of the test's own, and no network."""
    monkeypatch.setenv("DIFFICMH_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(preset, "Sd21Config", lambda rate: CONFIG)
    monkeypatch.setattr(plan, "CAPSULE_BYTES", {"float32": 1000, "bfloat16": 500})

    def refuse(*_: object) -> None:
        raise AssertionError("something wants to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The released files, which the catalogue says to lie in a folder."""
    use(tmp_path / "released", released_state(), monkeypatch)
    return tmp_path / "released"


def use(folder: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    sources = write_released(folder, state)
    monkeypatch.setattr(plan, "preset_sources", lambda _: sources)


def same(stored: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in stored.items())


def test_one_command_makes_a_capsule_that_verifies(
    tmp_path: Path, released: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "fetch", "sd21-r4"]) == 0
    capsule = tmp_path / "models" / "sd21-r4"
    printed = capsys.readouterr().out
    assert f"fingerprint {read_manifest(capsule)['fingerprint']}" in printed
    assert f"{tmp_path / 'models' / 'downloads'}. That folder may be deleted" in printed
    assert "--remove-downloads" not in printed  # the capsule exists now: a second run would be refused
    assert capsule_path("sd21-r4") == capsule
    assert "sd21-r4" in capsule_names()
    for file in released.rglob("*"):
        file.unlink() if file.is_file() else None  # nothing needs the sources any more
    assert main(["models", "verify", "sd21-r4"]) == 0
    assert main(["models", "list"]) == 0
    assert str(capsule) in capsys.readouterr().out
    assert main(["info", "sd21-r4"]) == 0
    assert re.search(r"checkpoint: model\.ckpt, [\d,]+ bytes, SHA-256 [0-9a-f]{64}\n", capsys.readouterr().out)

    codec = difficmh.load("sd21-r4")
    (stream,) = codec.compress([np.full((40, 50, 3), 90, np.uint8)], tags=[["moth"]])
    assert difficmh.inspect(stream).tags == ("moth",)
    assert codec.decompress([stream], mode="full")[0].shape == (3, 40, 50)
    assert codec.tag([np.full((40, 50, 3), 90, np.uint8)])

    content = read_config(capsule)
    assert Sd21Config.from_dict(content["codec"]) == CONFIG
    assert TagList.load(capsule) == TAGS
    assert load_tokenizer(capsule / "tokenizer")("a")[0] == 49406
    assert {file.stem for file in (capsule / "licences").iterdir()} == set(LICENCES)
    assert json.loads((capsule / "provenance.json").read_text())["checkpoint"]["location"] == "model.ckpt"


def test_weights_and_tables_are_the_released_ones(tmp_path: Path, released: Path) -> None:
    main(["models", "fetch", "sd21-r4", "--output", str(tmp_path / "here")])
    state, codec = released_state(), released_lfgcm()
    for part in ("unet", "vae", "text", "control", "tagger"):
        stored = load_part(tmp_path / "here", part)
        assert stored
        assert same(stored, state)
    weights = without_prefix(load_part(tmp_path / "here", "lfgcm"), PARTS["lfgcm"].prefix)
    assert weights.keys() == codec.state_dict().keys()
    assert same(weights, codec.state_dict())
    tables = capsule_tables(codec)
    assert np.array_equal(load_tables(tmp_path / "here").z.cdfs, tables["z.cdfs"])
    assert np.array_equal(load_official_tables(tmp_path / "here").z.cdfs, tables["official.z.cdfs"])


def test_bfloat16_halves_all_but_the_latent_codec(tmp_path: Path, released: Path) -> None:
    assert main(["models", "fetch", "sd21-r4", "--dtype", "bfloat16"]) == 0
    dtypes = read_config(tmp_path / "models" / "sd21-r4")["dtypes"]
    assert dtypes.pop("lfgcm") == "float32"
    assert set(dtypes.values()) == {"bfloat16"}


def test_frozen_parts_may_come_from_files_of_their_own(
    tmp_path: Path, released: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint of the trained parts alone, Stable Diffusion with a bare state dict, RAM++ without prefix."""
    state = released_state()
    trained = {name: t for name, t in state.items() if name.startswith(("control_model.", "preprocess_model."))}
    use(released, trained, monkeypatch)
    assert main(["models", "fetch", "sd21-r4"]) == 1
    assert "model.ckpt holds nothing under model.diffusion_model." in capsys.readouterr().err
    frozen = tuple(PARTS[part].prefix for part in preset.FROZEN)
    torch.save({name: t for name, t in state.items() if name.startswith(frozen)}, tmp_path / "sd.ckpt")
    torch.save({"model": without_prefix(state, TAGGER_PREFIX)}, tmp_path / "ram.pth")
    places = ["--stable-diffusion", str(tmp_path / "sd.ckpt"), "--tagger", str(tmp_path / "ram.pth")]
    places += ["--tokenizer", str(write_tokenizer(tmp_path / "clip", ["a b"]))]
    assert main(["models", "fetch", "sd21-r4", *places]) == 0
    verify(tmp_path / "models" / "sd21-r4")
    assert same(load_part(tmp_path / "models" / "sd21-r4", "vae"), state)
    assert "a b" in (tmp_path / "models" / "sd21-r4" / "tokenizer" / "merges.txt").read_text()


def test_a_dry_run_says_what_it_would_do_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_models, "_assembler", None)
    assert main(["models", "fetch", "sd21-r8", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "hub://RuoyuFeng/Diff-ICMH/difficmh_models/" in printed
    assert "to download: 11.66 GB" in printed
    assert str(tmp_path / "models" / "sd21-r8") in printed
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"1 missing: preprocess_model.encoder.g_a3.weight"),
        ("other shape", r"has other shapes for conv_out.bias"),
        ("foreign", r"1 unexpected: discriminator.weight"),
        ("surplus", r"of which the model holds"),
        ("too large", r"the latent codec cannot be used: .*hyper_dec.* too large"),
        ("not finite", r"holds numbers that are no finite floats"),
    ],
)
def test_a_wrong_checkpoint_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str, message: str
) -> None:
    state = released_state()
    wide = next(name for name in state if ".hyper_dec." in name and name.endswith("weight"))
    changes: dict[str, dict[str, Tensor]] = {
        "missing": {},
        "other shape": {"model.diffusion_model.out.2.bias": torch.ones(5)},
        "foreign": {"discriminator.weight": torch.ones(1)},
        "surplus": {"first_stage_model.encoder.conv_in.scale": torch.ones(1)},
        "too large": {wide: torch.full_like(state[wide], 1e9)},
        "not finite": {"control_model.middle_block_out.0.bias": torch.full((64,), float("nan"))},
    }
    if damage == "missing":
        del state["preprocess_model.encoder.g_a3.weight"]
    use(tmp_path / "released", state | changes[damage], monkeypatch)
    assert main(["models", "fetch", "sd21-r4"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("difficmh: ")
    assert re.search(message, error), error
    assert not [path for path in (tmp_path / "models").iterdir() if "sd21-r4" in path.name]


def test_an_interrupted_checkpoint_is_named(tmp_path: Path, released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (released / "model.ckpt").read_bytes()
    (released / "model.ckpt").write_bytes(whole[: len(whole) // 2])
    assert main(["models", "fetch", "sd21-r4"]) == 1
    assert "model.ckpt is no checkpoint" in capsys.readouterr().err


def test_tags_of_another_number_are_refused(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (released / "names.txt").write_text("a\nb")
    (released / "thresholds.txt").write_text("0.5\n0.5\n")
    assert main(["models", "fetch", "sd21-r4"]) == 1
    assert "has 2 tags, and the tagger knows 5" in capsys.readouterr().err


def test_a_missing_extra_is_named_before_anything_is_fetched(
    tmp_path: Path, released: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "difficmh.sd21.preset", None)
    assert main(["models", "fetch", "sd21-r4"]) == 1
    assert "pip install '.[sd21]' in the project's folder" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


STOPPED = """
import sys, time
from difficmh import cli_models
from difficmh.cli import main
from difficmh.sd21 import capsule_writer, plan
from difficmh.taggers.ram_tags import TagList

def assemble(name, files, output, dtype):
    tags = TagList(("moth",), (0.5,))
    contents = capsule_writer.CapsuleContents(name, {}, {}, {}, tags.vocabulary(), tags)
    return capsule_writer.write_capsule(contents, output, dtype=dtype)

def never_ends(*_):
    print("half written", flush=True)
    time.sleep(100)

cli_models._assembler = lambda: assemble
plan.preset_sources = lambda _: {}
plan.CAPSULE_BYTES = {"float32": 1000, "bfloat16": 500}
capsule_writer.write_manifest = never_ends
sys.exit(main(["models", "fetch", "sd21-r4"]))
"""


def test_a_fetch_that_is_ended_leaves_no_capsule_half_written(tmp_path: Path) -> None:
    """By SIGTERM, as services are, no less than by Ctrl-C."""
    command = [sys.executable, "-c", STOPPED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert any("half written" in line for line in running.stdout)
        assert [path.name[:9] for path in (tmp_path / "models").glob(".*")] == [".sd21-r4-"]
        running.send_signal(signal.SIGTERM)
        _, complaints = running.communicate(timeout=60)
    assert (running.returncode, complaints) == (130, "difficmh: interrupted\n")
    assert not list((tmp_path / "models").glob("*sd21*"))


def test_a_capsule_is_never_replaced(tmp_path: Path, released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models" / "sd21-r4").mkdir(parents=True)
    assert main(["models", "fetch", "sd21-r4"]) == 1
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["models", "fetch", "sd21-r3"])
