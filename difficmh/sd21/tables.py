"""The integer tables of a capsule of the paper's family: `tables.safetensors`.

`z.cdfs`, `z.lengths`, `z.offsets`, and the same for `y`, are those of our own streams, in the layout that every capsule
has (`cdf_tables.py`). `official.z.cdfs` and so on are those of official files, in compressai's layout. All are made
once, when the capsule is written: machines that round differently would make others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from difficmh.cdf_tables import PARTS
from difficmh.errors import CapsuleError
from difficmh.sd21.lfgcm_entropy import LfgcmEntropy
from difficmh.sd21.official_coding import OfficialEntropyTables, bottleneck_tables, coding_tables, gaussian_tables
from difficmh.sd21.official_rans import OfficialTables

TABLES_FILE = "tables.safetensors"


def capsule_tables(model: LfgcmEntropy) -> dict[str, NDArray[np.int32]]:
    """All tables of a latent codec, named int32 arrays for `CapsuleContents.tables`."""
    official = {"z": bottleneck_tables(model.entropy_bottleneck), "y": gaussian_tables()}
    arrays = {f"official.{name}.{part}": getattr(official[name], part) for name in "zy" for part in PARTS}
    return coding_tables(model).to_arrays() | {name: np.array(array, np.int32) for name, array in arrays.items()}


def load_official_tables(capsule: Path) -> OfficialEntropyTables:
    """The tables of official files. Raises CapsuleError where a capsule has none."""
    try:
        arrays = load_file(capsule / TABLES_FILE)
        z, y = (OfficialTables(*(arrays[f"official.{name}.{part}"] for part in PARTS)) for name in "zy")
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CapsuleError(f"{capsule / TABLES_FILE} holds no usable tables for official files: {error}") from error
    return OfficialEntropyTables(z=z, y=y)
