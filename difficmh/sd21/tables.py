"""The integer tables of a capsule of the paper's family: `tables.safetensors`.

`z.cdfs`, `z.lengths`, `z.offsets`, and the same for `y`, are those of our own streams, in the layout that every capsule
has (`cdf_tables.py`). `official.z.cdfs` and so on are those of official files, in compressai's layout. All are made
once, when the capsule is written: machines that round differently would make others.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from difficmh.capsule import TABLES
from difficmh.cdf_tables import PARTS, gaussian_tables, tables_from_pmf
from difficmh.errors import CapsuleError
from difficmh.sd21 import official_coding
from difficmh.sd21.lfgcm_entropy import LfgcmEntropy
from difficmh.sd21.official_coding import OfficialEntropyTables
from difficmh.sd21.official_rans import OfficialTables
from difficmh.symbols import EntropyTables


def capsule_tables(model: LfgcmEntropy) -> dict[str, NDArray[np.int32]]:
    """All tables of a latent codec, named int32 arrays for `CapsuleContents.tables`."""
    official = {
        "z": official_coding.bottleneck_tables(model.entropy_bottleneck),
        "y": official_coding.gaussian_tables(),
    }
    arrays = {f"official.{name}.{part}": getattr(official[name], part) for name in "zy" for part in PARTS}
    return coding_tables(model).to_arrays() | {name: np.array(array, np.int32) for name, array in arrays.items()}


@torch.no_grad()
def coding_tables(model: LfgcmEntropy) -> EntropyTables:
    """Tables of our own streams, with escape bins that are safe to decode; probabilities as for the official ones."""
    density = model.entropy_bottleneck
    below, above = density.range()
    reach = int(torch.maximum(below, above).max())
    density = copy.deepcopy(density).double()
    values = torch.arange(-reach, reach + 1, device=below.device) + density.medians
    masses = density.mass(values)[0][:, 0].cpu().numpy()
    pmfs = [
        mass[reach - low : reach + high + 1]
        for mass, low, high in zip(masses, below.tolist(), above.tolist(), strict=True)
    ]
    return EntropyTables(z=tables_from_pmf(pmfs, (-below).tolist()), y=gaussian_tables())


def load_official_tables(capsule: Path) -> OfficialEntropyTables:
    """The tables of official files. Raises CapsuleError where a capsule has none."""
    try:
        arrays = load_file(capsule / TABLES)
        z, y = (OfficialTables(*(arrays[f"official.{name}.{part}"] for part in PARTS)) for name in "zy")
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CapsuleError(f"{capsule / TABLES} holds no usable tables for official files: {error}") from error
    return OfficialEntropyTables(z=z, y=y)
