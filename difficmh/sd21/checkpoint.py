"""Released weights: what lies in a checkpoint of the official implementation, part by part.

    model.ckpt (PyTorch Lightning, 11 GB) ─mmap─► state_dict ─prefix─► control, lfgcm, unet, vae, text, tagger
    ram_plus_swin_large_14m.pth           ─mmap─► model ─────────────────────────────────────────────► tagger

A file is mapped, not read: a tensor's bytes are touched when somebody uses them, and optimizer states never. Unpickling
is torch's own, restricted to tensors and plain containers. What a training framework leaves beside them becomes an
inert placeholder, and a file that asks for anything else is refused.
Source: Diff-ICMH, official implementation, and the listing of its released files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from difficmh.errors import CapsuleError

Shapes = Mapping[str, tuple[int, ...]]
"""What a part has to hold: official names, prefix included, and shapes."""


@dataclass(frozen=True)
class Part:
    """A part of the model: the prefix of its tensors, and patterns of those (after the prefix) that nobody needs."""

    prefix: str
    ignorable: tuple[str, ...] = ()


TABLE_BUFFERS = ("_offset", "_quantized_cdf", "_cdf_length", "scale_table", "target", "scale_bound", "bound")
"""Buffers of compressai's entropy models: tables, empty in a training checkpoint, and constants."""

PARTS: Mapping[str, Part] = {
    "control": Part("control_model.", ("scale_list",)),
    "lfgcm": Part("preprocess_model.", tuple(rf".*\.{re.escape(name)}" for name in TABLE_BUFFERS)),
    "unet": Part("model.diffusion_model."),
    "vae": Part("first_stage_model."),
    "text": Part(
        "cond_stage_model.",
        (
            r"model\.attn_mask",
            r"model\.text_projection",
            r"model\.logit_scale",
            r"model\.transformer\.resblocks\.23\..*",
        ),
    ),
    "tagger": Part(
        "preprocess_tag_model.",
        (
            r"preprocess_normalize_(mean|std)",
            r"model\.visual_encoder\..*\.relative_position_index",
            r"model\.visual_encoder\..*\.attn_mask",
        ),
    ),
}
"""The parts of `model.ckpt`. Ignorable: the control module's scales (all 1), constants, the text tower's unused end."""

SCHEDULE = frozenset(
    (
        *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
        *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
        *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
        "logvar",
    )
)
"""Vectors of the noise schedule, which follow from the configuration."""

AVERAGING = frozenset(("model_ema.decay", "model_ema.num_updates"))
"""Two scalars that Stable Diffusion's files keep of averaged weights ("ema-pruned") that have replaced the others."""

WEIGHT_ENTRIES = ("state_dict", "model")
"""Where files keep their weights; epoch, optimizer_states, lr_schedulers, callbacks beside them are never looked at."""

TAGGER_PREFIX = "preprocess_tag_model.model."

OLD_BOTTLENECK = re.compile(r"(.*entropy_bottleneck\.)_(matrix|bias|factor)(\d)")
BOTTLENECK_LISTS = {"matrix": "matrices", "bias": "biases", "factor": "factors"}

FRAMEWORKS = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "numpy", "typing", "pathlib")
PLAIN = frozenset(
    (
        *("builtins.dict", "builtins.list", "builtins.tuple", "builtins.int", "builtins.float", "builtins.str"),
        *("builtins.bool", "builtins.object", "builtins.set", "builtins.frozenset", "builtins.slice"),
        *("argparse.Namespace", "collections.defaultdict", "collections.deque"),
    )
)
"""Packages whose objects, and plain types that, may lie beside the weights; none of them is created."""


def read_parts(path: Path, expected: Mapping[str, Shapes | None]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The wanted parts of a checkpoint, one after the other, under official names with prefix.

    `expected` names the parts (keys of `PARTS`) and all that each must hold; None leaves that check to the caller, who
    gets whatever is not ignorable. The old names of the entropy bottleneck become those of compressai from 1.2.7 on,
    which `expected` uses. Tensors are views of the mapped file.

    Raises CapsuleError for a file that is no checkpoint, asks for more than tensors, or has missing, unexpected or
    misshapen tensors, in any part; tensors that are ignorable and not expected are dropped.
    """
    weights = _weights(path)
    foreign = [name for name in weights if _part_of(name) is None and name not in SCHEDULE | AVERAGING]
    _refuse(path, "unexpected", foreign)
    for part, shapes in expected.items():
        yield part, _select(path, weights, PARTS[part], shapes)


def read_tagger(path: Path, expected: Shapes) -> dict[str, Tensor]:
    """The tagger from its own release, whose names lack the prefix; `expected` and the result have it."""
    weights = {f"{TAGGER_PREFIX}{name}": tensor for name, tensor in _weights(path).items()}
    return _select(path, weights, PARTS["tagger"], expected)


def without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under `prefix`, whose names lose it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def with_prefix(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    """What a module needs as what a part of the checkpoint has to hold."""
    return {f"{prefix}{name}": tuple(shape) for name, shape in shapes.items()}


def current_name(name: str) -> str:
    """The name that compressai from 1.2.7 on has for a tensor; older versions numbered the bottleneck's differently."""
    found = OLD_BOTTLENECK.fullmatch(name)
    return f"{found[1]}{BOTTLENECK_LISTS[found[2]]}.{found[3]}" if found else name


def _part_of(name: str) -> Part | None:
    return next((part for part in PARTS.values() if name.startswith(part.prefix)), None)


def _select(path: Path, weights: Mapping[str, Tensor], part: Part, shapes: Shapes | None) -> dict[str, Tensor]:
    found = {current_name(name): name for name in weights if name.startswith(part.prefix)}
    if shapes is None:
        if not found:
            raise CapsuleError(f"{path.name} holds nothing under {part.prefix}*")
        shapes = {name: tuple(weights[found[name]].shape) for name in found if not _ignorable(name, part)}
    _refuse(path, "missing", shapes.keys() - found.keys())
    surplus = found.keys() - shapes.keys()
    _refuse(path, "unexpected", (name for name in surplus if not _ignorable(name, part)))
    chosen = {name: weights[found[name]] for name in shapes}
    wrong = (f"{name} {tuple(t.shape)}, not {shapes[name]}" for name, t in chosen.items() if t.shape != shapes[name])
    _refuse(path, "misshapen", wrong)
    _refuse(path, "not floating-point", (name for name, t in chosen.items() if not t.is_floating_point()))
    return chosen


def _ignorable(name: str, part: Part) -> bool:
    return any(re.fullmatch(pattern, name.removeprefix(part.prefix)) for pattern in part.ignorable)


def _refuse(path: Path, what: str, names: Iterable[str]) -> None:
    if listed := sorted(names):
        more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
        raise CapsuleError(f"{path.name}: {len(listed)} {what}: {', '.join(listed[:5])}{more}")


# --- files


def _weights(path: Path) -> Mapping[str, Tensor]:
    """Name to tensor, without reading any tensor's bytes."""
    content = _open(path)
    for entry in WEIGHT_ENTRIES:
        if isinstance(content, dict) and isinstance(content.get(entry), dict):
            content = content[entry]
            break
    if not isinstance(content, Mapping) or not content:
        raise CapsuleError(f"{path.name} holds no weights")
    if isinstance(content, dict):
        _refuse(path, "not tensors", (str(name) for name, value in content.items() if not _is_tensor(name, value)))
    return content


def _open(path: Path) -> Any:
    try:
        return _Safetensors(path) if path.suffix == ".safetensors" else _unpickle(path)
    except CapsuleError:
        raise
    except UnpicklingError as error:
        # torch's message advises to switch the restriction off; the reader of ours should not.
        raise CapsuleError(f"{path.name} is no checkpoint: its pickle is damaged or holds unusual objects") from error
    except (OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, SafetensorError) as error:
        first = (str(error) or repr(error)).splitlines()[0]
        raise CapsuleError(f"{path.name} is no checkpoint: {first}") from error


def _is_tensor(name: object, value: Any) -> bool:
    return isinstance(name, str) and type(value) in (Tensor, torch.nn.Parameter) and value.layout is torch.strided


def _unpickle(path: Path) -> Any:
    with _safe_globals():
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    _refuse(path, "kinds of object that weights do not need", (name for name in foreign if not _harmless(name)))
    with _safe_globals(*((_stand_in(name), name) for name in foreign)):
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)


@contextmanager
def _safe_globals(*stand_ins: Any) -> Iterator[None]:
    """What the unpickler may create beside tensors is this alone, whatever other libraries have allowed it."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(stand_ins))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _harmless(name: str) -> bool:
    return name.split(".")[0] in FRAMEWORKS or name in PLAIN


def _stand_in(name: str) -> type:
    """What takes the place of a harmless kind. The unpickler fills plain containers only, item by item."""
    if name == "collections.deque":
        return _PlainList
    # Lightning keeps hyperparameters in its AttributeDict, in another module in each of its versions.
    filled = name == "collections.defaultdict" or name.endswith(".AttributeDict")
    return _PlainDict if filled else _Inert


class _Inert:
    """Stands for any object beside the weights: takes what its pickle gives it and keeps nothing."""

    def __new__(cls, *_arguments: object, **_options: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_arguments: object, **_options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _PlainDict:
    """Makes plain dictionaries, in whatever way a pickle creates its objects."""

    def __new__(cls, *_arguments: object) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


class _PlainList:
    """Makes plain lists."""

    def __new__(cls, *_arguments: object) -> list[Any]:  # type: ignore[misc]
        return []


class _Safetensors(Mapping[str, Tensor]):
    """Mirrors offer the same names in this format, which needs no unpickling."""

    def __init__(self, path: Path) -> None:
        opener: Any = safe_open
        self._file = opener(path, framework="pt", device="cpu")
        self._names = tuple(self._file.keys())

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
