"""What a model can be asked for, read from its `config.json`: jobs refuse the rest before any network is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, get_args

from difficmh.capsule import CONFIG, read_config
from difficmh.config import DEFAULT_QUALITY, MAX_EFFORT
from difficmh.errors import CapsuleError

Mode = Literal["preview", "full", "reference"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""How pictures are drawn: without denoising, in few steps, as the method's authors do."""

MOST_STEPS: Mapping[str, Mapping[str, int]] = {
    "lite": {"ddim": 1000},
    "sd21": {"ddpm": 1000, "ddim": 1000, "dpm++": 999, "unipc": 999},
}
"""Samplers of each family, and the most steps of each, for jobs that hold no networks and for the networks alike."""

DTYPES: Mapping[str, tuple[str, ...]] = {"lite": ("float32",), "sd21": ("float32", "bfloat16", "float16")}
"""Precisions of each family's denoiser."""

DEVICES = ("cpu", "cuda")
"""What command lines call devices. Which of several GPUs is cuda, CUDA_VISIBLE_DEVICES says."""


@dataclass(frozen=True)
class Limits:
    """`default_quality` is what a codec takes where none is asked for, `max_effort` 0 for one that takes no effort."""

    qualities: range
    default_quality: int
    max_effort: int


def read_limits(path: Path) -> Limits:
    """The limits of a capsule: those of `lite` have as many qualities as lambdas, those of another family one.

    Raises CapsuleError as `read_config`.
    """
    config = read_config(path)
    if config.get("family", "lite") != "lite":
        return Limits(range(1, 2), 1, 0)
    try:
        return Limits(range(1, len(config["codec"]["lambdas"]) + 1), DEFAULT_QUALITY, MAX_EFFORT)
    except (KeyError, TypeError) as error:
        raise CapsuleError(f"{path / CONFIG} describes no codec of this version: {error!r}") from error


def whole_number(value: object, name: str) -> int:
    """`value`, an int or an integer of numpy. Raises ValueError for anything else, such as 3.0 and True."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    return int(value)


def check_mode(mode: str, steps: int | None, sampler: str | None) -> None:
    """Raises ValueError for a mode that there is not, for `preview` with steps or a sampler, and for steps that are no
    whole number. How many there can be is for the sampler to say."""
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}")
    if mode == "preview" and (steps is not None or sampler is not None):
        raise ValueError("preview does not denoise: it takes neither steps nor sampler")
    if steps is not None:
        whole_number(steps, "steps")


def check_drawing(
    config: Mapping[str, Any], mode: str, steps: int | None, sampler: str | None, dtype: str | None
) -> None:
    """Whether the model of this `config.json` can draw so; None is the mode's own. Raises ValueError where it cannot.

    For jobs, which hold no networks: `Codec.decompress` and `load` would refuse the same, once in each worker. Raises
    CapsuleError for a model of another version.
    """
    family = config.get("family", "lite")
    if family not in MOST_STEPS:
        raise CapsuleError(f"the model is of the family {family!r}, which this version does not know")
    check_mode(mode, steps, sampler)
    samplers = MOST_STEPS[family]
    if sampler is not None and sampler not in samplers:
        raise ValueError(f"sampler {sampler!r} is not one of this model's: {', '.join(samplers)}")
    if dtype is not None and dtype not in DTYPES[family]:
        raise ValueError(f"the denoiser of this model runs in {', '.join(DTYPES[family])}, not {dtype!r}")
    if mode == "preview":
        return
    most = samplers[sampler or _usual_sampler(config, family, mode)]
    if steps is not None and not 1 <= steps <= most:
        raise ValueError(f"steps must be in 1..{most}, not {steps}")


def _usual_sampler(config: Mapping[str, Any], family: str, mode: str) -> str:
    if family == "lite":
        return "ddim"
    try:
        return str(config["codec"]["drawing"][f"{mode}_sampler"])
    except (KeyError, TypeError) as error:
        raise CapsuleError(f"the model describes no codec of this version: {error!r}") from error
