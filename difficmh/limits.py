"""What a model can be asked for, read from its `config.json`: jobs refuse the rest before any network is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from difficmh.capsule import read_config
from difficmh.config import DEFAULT_QUALITY, MAX_EFFORT
from difficmh.errors import CapsuleError


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
        raise CapsuleError(f"{path}/config.json describes no codec of this version: {error!r}") from error
