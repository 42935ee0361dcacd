"""Numbers of the paper's official implementation, to hold ours against.

The folder comes from the variable DIFFICMH_PARITY, by default `../shared/parity` beside the checkout; where it is
absent, the tests that need it are skipped.
"""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from torch import Tensor

FOLDER = Path(os.environ.get("DIFFICMH_PARITY") or Path(__file__).parents[3] / "shared" / "parity")

needs_parity = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no parity fixtures in {FOLDER}")


def tensors(name: str) -> dict[str, Tensor]:
    """Tensors of `name.safetensors`, or of `name.safetensors.xz`."""
    plain = FOLDER / f"{name}.safetensors"
    data = plain.read_bytes() if plain.exists() else lzma.decompress((FOLDER / f"{name}.safetensors.xz").read_bytes())
    return safetensors.torch.load(data)


def facts(name: str) -> dict[str, Any]:
    """Contents of `name.json`."""
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return content
