import errno
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_arrays
from torch import Tensor

from difficmh.capsule import INDEX, MANIFEST, PROVENANCE, read_config, read_manifest, verify
from difficmh.errors import CapsuleError
from difficmh.sd21 import capsule_writer
from difficmh.sd21.capsule_writer import CapsuleContents, plan_shards, public_location, write_capsule
from difficmh.sd21.checkpoint import PARTS, read_parts
from difficmh.sd21.fetch import Fetched
from difficmh.sd21.loading import load_part
from difficmh.taggers.ram_tags import TagList
from difficmh.vocabulary import Vocabulary
from tests.difficmh.sd21.official_files import expected, write_lightning
from tests.difficmh.taggers.small_ram import TAGS


@pytest.fixture
def contents(tmp_path: Path) -> CapsuleContents:
    """The way of a released file: a Lightning checkpoint, mapped, by parts."""
    parts = dict(read_parts(write_lightning(tmp_path / "model.ckpt"), expected()))
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "LICENSE").write_text("free")
    return CapsuleContents(
        name="sd21-r4",
        config={"width": 3, "tagger": {"depths": (2, 2)}},
        parts=parts,
        tables={"z.cdfs": np.arange(5, dtype=np.int32), "y.offsets": np.array([-3], np.int32)},
        vocabulary=TAGS.vocabulary(),
        tags=TAGS,
        companions={"tokenizer/vocab.json": tmp_path / "vocab.json", "licences/Diff-ICMH.txt": tmp_path / "LICENSE"},
        sources={
            "checkpoint": Fetched(tmp_path / "model.ckpt", "hub://o/n@c0ffee/model.ckpt", "a" * 64, 7),
            "tag_names": Fetched(tmp_path / "names.txt", str(tmp_path / "names.txt"), "b" * 64, 8),
        },
    )


def changed(contents: CapsuleContents, name: str, tensor: Tensor) -> CapsuleContents:
    parts: Mapping[str, Mapping[str, Tensor]] = {
        part: {key: tensor if key == name else value for key, value in tensors.items()}
        for part, tensors in contents.parts.items()
    }
    return replace(contents, parts=parts)


def nothing_left(tmp_path: Path) -> bool:
    return not [path.name for path in tmp_path.iterdir() if "capsule" in path.name]


def test_a_capsule_holds_all_that_was_given(tmp_path: Path, contents: CapsuleContents) -> None:
    capsule = tmp_path / "new" / "capsule"
    fingerprint = write_capsule(contents, capsule)
    verify(capsule)
    usual = (tmp_path / "vocab.json").stat().st_mode  # workers may run under another user
    assert {file.stat().st_mode for file in capsule.rglob("*") if file.is_file()} == {usual}
    assert read_manifest(capsule)["fingerprint"] == fingerprint
    assert [path.name for path in capsule.parent.iterdir()] == ["capsule"]
    for part, tensors in contents.parts.items():
        stored = load_part(capsule, part)
        assert stored.keys() == tensors.keys()
        assert all(torch.equal(stored[name], tensors[name]) and stored[name].dtype == torch.float32 for name in tensors)
    assert {name: array.tolist() for name, array in load_arrays(capsule / "tables.safetensors").items()} == {
        "z.cdfs": [0, 1, 2, 3, 4],
        "y.offsets": [-3],
    }
    assert TagList.load(capsule) == TAGS
    assert Vocabulary.load(capsule / "tags.json") == contents.vocabulary
    config = read_config(capsule)
    assert (config["family"], config["name"], config["codec"]["tagger"]) == ("sd21", "sd21-r4", {"depths": [2, 2]})
    assert (capsule / "licences" / "Diff-ICMH.txt").read_text() == "free"


@pytest.mark.parametrize(
    ("location", "public"),
    [
        ("folder/model.ckpt", "model.ckpt"),
        ("hub://owner/name@0123abc/model.ckpt", "hub://owner/name@0123abc/model.ckpt"),
        ("https://me:secret@host:8443/a/model.ckpt?X-Signature=secret#part", "https://host:8443/a/model.ckpt"),
        ("s3://bucket/model.ckpt", "s3://bucket/model.ckpt"),
    ],
)
def test_a_capsule_keeps_no_secret_of_an_address(location: str, public: str) -> None:
    assert public_location(location) == public


def test_provenance_names_revisions_and_no_folder(tmp_path: Path, contents: CapsuleContents) -> None:
    write_capsule(contents, tmp_path / "capsule")
    assert json.loads((tmp_path / "capsule" / PROVENANCE).read_text()) == {
        "checkpoint": {"location": "hub://o/n@c0ffee/model.ckpt", "sha256": "a" * 64, "size": 7},
        "tag_names": {"location": "names.txt", "sha256": "b" * 64, "size": 8},
    }


def test_the_same_contents_make_the_same_capsule(tmp_path: Path, contents: CapsuleContents) -> None:
    first, second = (write_capsule(contents, tmp_path / name) for name in ("a", "b"))
    assert first == second
    assert (tmp_path / "a" / MANIFEST).read_bytes() == (tmp_path / "b" / MANIFEST).read_bytes()


def test_the_fingerprint_covers_what_decodes(tmp_path: Path, contents: CapsuleContents) -> None:
    """Every part but the tagger, tables, tags, their order, tokenizer; no licence."""
    one = torch.full((2, 3), 0.25)
    other_file = tmp_path / "other"
    other_file.write_text("other")
    companions = dict(contents.companions)
    order = TagList(TAGS.names[::-1], TAGS.thresholds[::-1])
    same = [
        changed(contents, "preprocess_tag_model.model.fc.weight", one),
        replace(contents, companions=companions | {"licences/Diff-ICMH.txt": other_file}),
        replace(contents, sources={}),
    ]
    different = [
        *(changed(contents, next(iter(tensors)), one) for part, tensors in contents.parts.items() if part != "tagger"),
        replace(contents, tables={"z.cdfs": np.zeros(5, np.int32)}),
        replace(contents, vocabulary=TAGS.vocabulary(expected_tags=1)),
        replace(contents, tags=order),
        replace(contents, companions=companions | {"tokenizer/vocab.json": other_file}),
        replace(contents, config={}),
    ]
    fingerprint = write_capsule(contents, tmp_path / "capsule")
    written = [write_capsule(each, tmp_path / f"other-{n}") for n, each in enumerate((*same, *different))]
    assert written[: len(same)] == [fingerprint] * len(same)
    assert len({fingerprint, *written[len(same) :]}) == len(different) + 1


def test_bfloat16_spares_the_latent_codec(tmp_path: Path, contents: CapsuleContents) -> None:
    write_capsule(contents, tmp_path / "capsule", dtype="bfloat16")
    dtypes = {part: {t.dtype for t in load_part(tmp_path / "capsule", part).values()} for part in PARTS}
    assert dtypes.pop("lfgcm") == {torch.float32}
    assert set(map(tuple, dtypes.values())) == {(torch.bfloat16,)}
    assert read_config(tmp_path / "capsule")["dtypes"]["unet"] == "bfloat16"


def test_parts_are_split_into_shards(tmp_path: Path, contents: CapsuleContents) -> None:
    write_capsule(contents, tmp_path / "capsule", shard_bytes=5 * 24)
    names = sorted(path.name for path in (tmp_path / "capsule").glob("lfgcm-*"))
    assert names == [f"lfgcm-{number:05}-of-00004.safetensors" for number in (1, 2, 3, 4)]
    index = json.loads((tmp_path / "capsule" / INDEX).read_text())["weight_map"]
    assert index["preprocess_model.g_a3.weight"] == names[-1]
    assert load_part(tmp_path / "capsule", "lfgcm").keys() == contents.parts["lfgcm"].keys()
    verify(tmp_path / "capsule")


def test_a_tensor_beyond_the_limit_has_its_own_shard() -> None:
    parts = {"vae": {"a": torch.ones(2), "b": torch.ones(100), "c": torch.ones(2)}}
    shards = plan_shards(parts, torch.float32, 16)
    assert [shard.names for shard in shards] == [("a",), ("b",), ("c",)]


@pytest.mark.parametrize("damage", ["flipped byte", "cut", "missing"])
def test_damage_is_noticed(tmp_path: Path, contents: CapsuleContents, damage: str) -> None:
    write_capsule(contents, tmp_path / "capsule")
    file = tmp_path / "capsule" / "unet-00001-of-00001.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        data[-5] ^= 1
        file.write_bytes(data if damage == "flipped byte" else data[:-5])
    with pytest.raises(CapsuleError, match="unet-00001"):
        verify(tmp_path / "capsule")
    if damage != "flipped byte":
        with pytest.raises(CapsuleError, match="no readable part 'unet'"):
            load_part(tmp_path / "capsule", "unet")


def test_a_part_that_is_not_there_is_named(tmp_path: Path, contents: CapsuleContents) -> None:
    write_capsule(contents, tmp_path / "capsule")
    with pytest.raises(CapsuleError, match="no part 'une'"):
        load_part(tmp_path / "capsule", "une")
    with pytest.raises(CapsuleError, match="no readable part"):
        load_part(tmp_path, "unet")


# --- refused, with nothing left behind


def test_an_existing_directory_is_left_alone(tmp_path: Path, contents: CapsuleContents) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(CapsuleError, match="exists already"):
        write_capsule(contents, tmp_path / "there")
    with pytest.raises(CapsuleError, match="not 'float16'"):
        write_capsule(contents, tmp_path / "capsule", dtype="float16")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, contents: CapsuleContents, value: float) -> None:
    bad = changed(contents, "first_stage_model.quant_conv.weight", torch.full((2, 3), value))
    with pytest.raises(CapsuleError, match=r"quant_conv\.weight holds numbers"):
        write_capsule(bad, tmp_path / "capsule")
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    "place", ["../out", "/out", "a\\b", "a//b", "config.json", MANIFEST, "unet-00001-of-00001.safetensors"]
)
def test_companions_stay_in_the_capsule(tmp_path: Path, contents: CapsuleContents, place: str) -> None:
    with pytest.raises(CapsuleError, match="cannot be stored"):
        write_capsule(replace(contents, companions={place: tmp_path / "LICENSE"}), tmp_path / "capsule")
    assert nothing_left(tmp_path)


def test_unusable_contents_are_refused(tmp_path: Path, contents: CapsuleContents) -> None:
    unet = contents.parts["unet"]
    bad: Mapping[str, CapsuleContents] = {
        "not int32": replace(contents, tables={"z": np.zeros(3, np.int64)}),  # type: ignore[dict-item]
        "tags or thresholds": replace(contents, tags=TagList(("a",), (0.5,))),
        "of one name": replace(contents, parts={"unet": unet, "other": unet}),
        "there is no file": replace(contents, companions={"a": tmp_path / "missing"}),
    }
    for message, each in bad.items():
        with pytest.raises(CapsuleError, match=message):
            write_capsule(each, tmp_path / "capsule")
    assert nothing_left(tmp_path)


def test_space_is_checked_first(tmp_path: Path, contents: CapsuleContents, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr("difficmh.sd21.fetch.shutil.disk_usage", lambda _: usage)
    with pytest.raises(CapsuleError, match="GB are needed"):
        write_capsule(contents, tmp_path / "capsule")
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("at", ["save_tensors", "write_manifest"])
def test_a_disk_that_fills_up_leaves_nothing(
    tmp_path: Path, contents: CapsuleContents, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(capsule_writer, at, full)
    with pytest.raises(CapsuleError, match="No space left"):
        write_capsule(contents, tmp_path / "capsule")
    assert nothing_left(tmp_path)
