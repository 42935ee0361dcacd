import json
import os
from pathlib import Path

import pytest

from difficmh.capsule import (
    BUILT_IN,
    DECODING_FILES,
    FORMAT,
    MANIFEST,
    capsule_names,
    capsule_of,
    capsule_path,
    models_folder,
    read_manifest,
    share,
    verify,
    verify_decoding,
    verify_tagger,
    write_manifest,
)
from difficmh.errors import CapsuleError


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_the_fingerprint_of_lite_is_that_of_its_streams(tmp_path: Path) -> None:
    """Resealing the built-in capsule changes nothing, to the byte."""
    lite = BUILT_IN / "lite"
    for file in lite.iterdir():
        if file.name != MANIFEST:
            (tmp_path / file.name).symlink_to(file)
    assert write_manifest(tmp_path) == read_manifest(lite)["fingerprint"]
    assert (tmp_path / MANIFEST).read_bytes() == (lite / MANIFEST).read_bytes()
    verify(lite)


def test_a_capsule_is_found_by_the_fingerprint_of_its_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built in or fetched, and beside a broken one that comes first."""
    monkeypatch.setenv("DIFFICMH_MODELS", str(tmp_path))
    write(tmp_path / "a-broken-one", MANIFEST)
    write(tmp_path / "mine", *DECODING_FILES)
    assert capsule_of(write_manifest(tmp_path / "mine")[:8]) == tmp_path / "mine"
    assert capsule_of(read_manifest(BUILT_IN / "lite")["fingerprint"][:8]) == BUILT_IN / "lite"
    assert capsule_of("00000000") is None


def test_hidden_files_are_no_part_of_a_capsule(tmp_path: Path) -> None:
    write(tmp_path, *DECODING_FILES, "licences/CODEC")
    fingerprint = write_manifest(tmp_path)
    content = (tmp_path / MANIFEST).read_bytes()
    write(tmp_path, ".DS_Store", "licences/.CODEC.swp", ".git/config")
    assert write_manifest(tmp_path) == fingerprint
    assert (tmp_path / MANIFEST).read_bytes() == content


def test_a_family_names_its_own_decoding_files(tmp_path: Path) -> None:
    write(tmp_path, "config.json", "model-00001.safetensors", "tokenizer/vocab.json", "tagger.safetensors")
    decoding = ("config.json", "model-00001.safetensors", "tokenizer/vocab.json")
    fingerprint = write_manifest(tmp_path, decoding)
    verify(tmp_path)
    assert read_manifest(tmp_path)["decoding"] == list(decoding)
    write(tmp_path, "notes.md")
    (tmp_path / "tagger.safetensors").write_text("another tagger")
    assert write_manifest(tmp_path, decoding) == fingerprint
    (tmp_path / "tokenizer" / "vocab.json").write_text("another tokenizer")
    assert write_manifest(tmp_path, decoding) != fingerprint
    assert write_manifest(tmp_path, decoding[:2]) != fingerprint


def test_a_capsule_without_a_decoding_file_is_not_sealed(tmp_path: Path) -> None:
    write(tmp_path, *DECODING_FILES[1:])
    with pytest.raises(CapsuleError, match=r"lacks config\.json"):
        write_manifest(tmp_path)
    assert not (tmp_path / MANIFEST).exists()


def test_a_manifest_with_a_borrowed_fingerprint_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, *DECODING_FILES)
    write_manifest(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "fingerprint": "0" * 16}))
    with pytest.raises(CapsuleError, match="another fingerprint"):
        verify(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "longer", "altered"])
def test_a_file_that_differs_is_named(tmp_path: Path, damage: str) -> None:
    write(tmp_path, *DECODING_FILES)
    write_manifest(tmp_path)
    file = tmp_path / "tables.safetensors"
    if damage == "missing":
        file.unlink()
    else:
        file.write_text(file.name + "!" if damage == "longer" else file.name.upper())
    with pytest.raises(CapsuleError, match=r"tables\.safetensors"):
        verify(tmp_path)


def test_the_models_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFICMH_MODELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert models_folder() == tmp_path / "difficmh" / "models"
    monkeypatch.setenv("DIFFICMH_MODELS", str(tmp_path / "mine"))
    assert models_folder() == tmp_path / "mine"


def test_a_released_model_that_is_not_here_is_to_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFICMH_MODELS", str(tmp_path))
    with pytest.raises(CapsuleError, match="difficmh models fetch sd21-r4"):
        capsule_path("sd21-r4")
    with pytest.raises(
        CapsuleError, match=r"no codec 'sd21': here are lite, .*; make it once: .* models fetch sd21-r4"
    ):
        capsule_path("sd21")


def test_where_a_codec_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFICMH_MODELS", str(tmp_path))
    (tmp_path / "here").mkdir()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name, place in (("../my-codec", "my-codec is no directory"), ("../empty", "empty has no manifest.json")):
        with pytest.raises(CapsuleError) as raised:
            capsule_path(name)
        assert str(raised.value) == f"no codec '{name}': here are lite, and {tmp_path / place}"


def test_a_user_without_a_home_has_the_built_in_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("DIFFICMH_MODELS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert capsule_path("lite") == BUILT_IN / "lite"
    assert "lite" in capsule_names()


def test_a_path_is_never_taken_for_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, *(f"lite/{name}" for name in DECODING_FILES))
    write_manifest(tmp_path / "lite")
    monkeypatch.chdir(tmp_path)
    for path in ("./lite", Path("lite"), str(tmp_path / "lite")):
        assert capsule_path(path).samefile(tmp_path / "lite")
    assert capsule_path("lite") == BUILT_IN / "lite"


def test_a_fetched_model_does_not_take_the_name_of_a_built_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFICMH_MODELS", str(tmp_path))
    write(tmp_path, *(f"{folder}/{name}" for folder in ("lite", "mine", ".half") for name in DECODING_FILES))
    for folder in ("lite", "mine", ".half"):
        write_manifest(tmp_path / folder)
    assert capsule_path("lite") == BUILT_IN / "lite"
    assert capsule_path("mine") == tmp_path / "mine"
    assert capsule_names() == ["lite", "mine"], "hidden is what an unfinished fetch left"


def test_models_lie_in_the_user_s_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DIFFICMH_MODELS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models_folder() == tmp_path / ".cache" / "difficmh" / "models"


def test_a_capsule_of_a_later_format(tmp_path: Path) -> None:
    write(tmp_path, *DECODING_FILES)
    write_manifest(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "format": FORMAT + 1}))
    with pytest.raises(CapsuleError, match="has capsule format 2, this version reads 1"):
        verify(tmp_path)


@pytest.mark.parametrize("altered", ["tagger-1-of-2.safetensors", "tags.json", "tag_numbers.json"])
def test_what_a_tagger_finds_is_named_by_files_that_are_checked_with_it(tmp_path: Path, altered: str) -> None:
    taggers = [f"tagger-{number}-of-2.safetensors" for number in (1, 2)]
    write(tmp_path, *DECODING_FILES, *taggers, "tag_numbers.json", "notes.md")
    write_manifest(tmp_path)
    (tmp_path / "notes.md").write_text("other notes")
    verify_tagger(tmp_path)
    (tmp_path / altered).write_text(altered.upper())
    with pytest.raises(CapsuleError, match=f"{altered} is not the file"):
        verify_tagger(tmp_path)


def test_decoding_needs_no_tagger(tmp_path: Path) -> None:
    write(tmp_path, *DECODING_FILES, "tagger.safetensors")
    write_manifest(tmp_path)
    (tmp_path / "tagger.safetensors").write_text("another")
    verify_decoding(tmp_path)


def test_a_shared_file_is_as_open_as_the_process_makes_any(tmp_path: Path) -> None:
    (tmp_path / "private").touch(0o600)
    before = os.umask(0o027)
    try:
        share(tmp_path / "private")
        assert os.umask(0o027) == 0o027, "and the process keeps its mask"
    finally:
        os.umask(before)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o640
