import collections
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import save_file

from difficmh.errors import CapsuleError
from difficmh.sd21.checkpoint import PARTS, current_name, read_parts, read_tagger, with_prefix, without_prefix
from tests.difficmh.sd21.official_files import (
    OLD_NAMES,
    WEIGHTS,
    expected,
    lightning_content,
    state_dict,
    write_lightning,
)


def test_every_part_comes_with_its_official_names(tmp_path: Path) -> None:
    parts = dict(read_parts(write_lightning(tmp_path / "model.ckpt"), expected()))
    assert list(parts) == list(PARTS)
    found = {name: tensor for part in parts.values() for name, tensor in part.items()}
    assert len(found) == len(WEIGHTS)
    for number, name in enumerate(WEIGHTS, 1):
        assert torch.equal(found[current_name(name)], torch.full((2, 3), float(number)))


def test_the_14_old_bottleneck_names_are_renamed() -> None:
    new = [current_name(name).rpartition("entropy_bottleneck.")[2] for name in OLD_NAMES]
    lists = (("matrices", 5), ("biases", 5), ("factors", 4))
    assert new == [f"{name}.{number}" for name, count in lists for number in range(count)]
    assert current_name("preprocess_model.g_a1._bias0") == "preprocess_model.g_a1._bias0"


def test_checkpoints_with_new_bottleneck_names_are_read_too(tmp_path: Path) -> None:
    state = {current_name(name): tensor for name, tensor in state_dict().items()}
    path = write_lightning(tmp_path / "model.ckpt", state_dict=state)
    assert len(dict(read_parts(path, expected("lfgcm")))["lfgcm"]) == 16


def test_only_wanted_parts_are_checked(tmp_path: Path) -> None:
    state = state_dict()
    del state["first_stage_model.quant_conv.weight"]
    path = write_lightning(tmp_path / "model.ckpt", state_dict=state)
    assert list(dict(read_parts(path, expected("unet", "control")))) == ["unet", "control"]
    with pytest.raises(CapsuleError, match=r"1 missing: first_stage_model\.quant_conv\.weight"):
        list(read_parts(path, expected()))


def test_an_ignorable_tensor_is_kept_where_it_is_expected(tmp_path: Path) -> None:
    wanted = {"control": {**expected("control")["control"], "control_model.scale_list": (4,)}}
    part = dict(read_parts(write_lightning(tmp_path / "model.ckpt"), wanted))["control"]
    assert torch.equal(part["control_model.scale_list"], torch.ones(4))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("control_model.surprise", r"1 unexpected: control_model\.surprise"),
        ("preprocess_model.entropy_bottleneck._matrix5", r"unexpected: .*matrices\.5"),
        ("discriminator.weight", r"1 unexpected: discriminator\.weight"),
        ("model_ema.diffusion_modelout2weight", r"1 unexpected: model_ema\.diffusion_modelout2weight"),
        ("preprocess_model.g_a3.target_scale", "unexpected"),
    ],
)
def test_a_tensor_nobody_expects_is_refused(tmp_path: Path, name: str, message: str) -> None:
    path = write_lightning(tmp_path / "model.ckpt", state_dict=state_dict() | {name: torch.ones(1)})
    with pytest.raises(CapsuleError, match=message):
        list(read_parts(path, expected()))


def test_shapes_and_dtypes_are_checked(tmp_path: Path) -> None:
    name = "model.diffusion_model.out.2.weight"
    for tensor, message in ((torch.ones(3, 2), r"\(3, 2\), not \(2, 3\)"), (torch.ones(2, 3).int(), "not floating")):
        path = write_lightning(tmp_path / "model.ckpt", state_dict=state_dict() | {name: tensor})
        with pytest.raises(CapsuleError, match=message):
            list(read_parts(path, expected()))


def test_long_lists_are_cut(tmp_path: Path) -> None:
    state = state_dict() | {f"other.{number}": torch.ones(1) for number in range(20)}
    with pytest.raises(CapsuleError, match=r"20 unexpected: .* and 15 more"):
        list(read_parts(write_lightning(tmp_path / "model.ckpt", state_dict=state), expected()))


# --- other layouts


def test_the_tagger_is_read_from_its_own_release(tmp_path: Path) -> None:
    tensors = {"fc.weight": torch.ones(2, 3), "visual_encoder.layers.0.blocks.1.attn_mask": torch.ones(1)}
    torch.save({"model": tensors, "epoch": 1}, tmp_path / "ram.pth")
    part = read_tagger(tmp_path / "ram.pth", expected("tagger")["tagger"])
    assert torch.equal(part["preprocess_tag_model.model.fc.weight"], torch.ones(2, 3))
    with pytest.raises(CapsuleError, match="missing"):
        read_tagger(tmp_path / "ram.pth", {"preprocess_tag_model.model.fc.bias": (1,)})


def test_safetensors_and_bare_state_dicts_are_read(tmp_path: Path) -> None:
    torch.save(state_dict(), tmp_path / "bare.ckpt")
    save_file(state_dict(), tmp_path / "model.safetensors")
    for name in ("bare.ckpt", "model.safetensors"):
        parts = dict(read_parts(tmp_path / name, expected()))
        assert sum(map(len, parts.values())) == len(WEIGHTS)


def test_prefixes_come_and_go() -> None:
    shapes = with_prefix({"fc.weight": (2, 3)}, "preprocess_tag_model.model.")
    assert shapes == expected("tagger")["tagger"]
    tensors = {"a.b": torch.ones(1), "c.b": torch.ones(1)}
    assert list(without_prefix(tensors, "a.")) == ["b"]


# --- memory


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident memory that Linux reports")
def test_a_large_file_is_mapped_and_not_read(tmp_path: Path) -> None:
    size = 96 << 20
    moments = [{"state": {0: {"exp_avg": torch.ones(size // 4)}}, "param_groups": []}]
    state = state_dict() | {"first_stage_model.quant_conv.weight": torch.ones(size // 4)}
    path = write_lightning(tmp_path / "model.ckpt", optimizer_states=moments, state_dict=state)
    wanted = expected() | {"vae": {"first_stage_model.quant_conv.weight": (size // 4,)}}
    del moments, state
    before = psutil.Process().memory_info().rss
    parts = dict(read_parts(path, wanted))
    grown = psutil.Process().memory_info().rss - before
    assert grown < size // 4
    assert parts["vae"]["first_stage_model.quant_conv.weight"][-1] == 1


# --- what must not happen


class _Attack:
    """Would leave a file behind if its pickle were obeyed."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", ["callbacks", "optimizer_states", "state_dict", "anything"])
@pytest.mark.parametrize("function", [os.mkdir, exec, eval, __import__])
def test_a_hostile_pickle_is_refused_and_does_nothing(tmp_path: Path, function: Any, place: str, protocol: int) -> None:
    target = tmp_path / "owned"
    argument = str(target) if function is os.mkdir else f"open({str(target)!r}, 'w')"
    attack: Any = _Attack(function, argument)
    content = lightning_content()
    content[place] = {**state_dict(), "x": attack} if place == "state_dict" else [attack]
    torch.save(content, tmp_path / "model.ckpt", pickle_protocol=protocol)
    with pytest.raises(CapsuleError):
        list(read_parts(tmp_path / "model.ckpt", expected()))
    assert not target.exists()


def test_what_a_framework_leaves_behind_is_not_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes of Lightning and omegaconf, as keys, values and containers, are read past although they exist here."""
    module = types.ModuleType("pytorch_lightning")
    made: list[object] = []

    class Checkpoint:
        def __init__(self, *arguments: object) -> None:
            made.append(self)

        def __setstate__(self, state: object) -> None:
            made.append(self)

        def __reduce__(self) -> tuple[Any, ...]:
            return Checkpoint, (1,), {"best": 2}

    Checkpoint.__module__, Checkpoint.__qualname__ = module.__name__, "Checkpoint"
    module.Checkpoint = Checkpoint  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    paths: dict[str, Any] = collections.defaultdict(list, {"dir": [Path("runs")]})
    callbacks = {Checkpoint: Checkpoint(), "paths": paths}
    path = write_lightning(tmp_path / "model.ckpt", callbacks=callbacks, hyper_parameters=collections.OrderedDict(a=1))
    made.clear()
    assert len(dict(read_parts(path, expected()))) == len(PARTS)
    assert not made


def test_containers_beside_the_weights_may_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("pytorch_lightning")
    made: list[object] = []

    class AttributeDict(dict[str, Any]):
        def __init__(self, *arguments: object) -> None:
            made.append(self)

    AttributeDict.__module__, AttributeDict.__qualname__ = module.__name__, "AttributeDict"
    module.AttributeDict = AttributeDict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    parameters = AttributeDict()
    parameters["lr"] = 1e-4
    callbacks = {"last": collections.deque([1, 2], maxlen=5), "all": collections.deque([3])}
    path = write_lightning(tmp_path / "model.ckpt", callbacks=callbacks, hyper_parameters=parameters)
    made.clear()
    assert len(dict(read_parts(path, expected()))) == len(PARTS)
    assert not made


def test_what_other_libraries_allow_is_not_allowed_here(tmp_path: Path) -> None:
    with torch.serialization.safe_globals([os.mkdir, collections.defaultdict]):
        torch.save(lightning_content() | {"x": _Attack(os.mkdir, str(tmp_path / "owned"))}, tmp_path / "model.ckpt")
        before = set(torch.serialization.get_safe_globals())
        with pytest.raises(CapsuleError, match="mkdir"):
            list(read_parts(tmp_path / "model.ckpt", expected()))
        assert set(torch.serialization.get_safe_globals()) == before
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "headless", "legacy", "plain pickle", "missing"])
def test_what_is_no_checkpoint_says_so(tmp_path: Path, damage: str) -> None:
    path = write_lightning(tmp_path / "model.ckpt")
    data = path.read_bytes()
    if damage == "legacy":
        torch.save(lightning_content(), path, _use_new_zipfile_serialization=False)
    elif damage == "missing":
        path.unlink()
    else:
        contents = {"empty": b"", "text": b"<html>", "cut": data[: len(data) // 2], "headless": data[100:]}
        path.write_bytes(contents.get(damage, pickle.dumps({"state_dict": {}})))
    with pytest.raises(CapsuleError, match=r"model\.ckpt is no checkpoint"):
        list(read_parts(path, expected()))


@pytest.mark.parametrize("content", [{}, [], {"epoch": 1}, {"state_dict": {}}, {"state_dict": {"a": 1}}])
def test_a_checkpoint_without_weights_says_so(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(CapsuleError, match=r"holds no weights|not tensors"):
        list(read_parts(tmp_path / "model.ckpt", expected()))
