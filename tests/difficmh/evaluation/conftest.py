"""The detector and a street frame of the shared material; tests without them are skipped."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from difficmh.images import decode_image

SHARED = Path(__file__).parents[4] / "shared"


@pytest.fixture(scope="session")
def fastestdet() -> Path:
    pytest.importorskip("onnxruntime")
    path = SHARED / "models" / "fastestdet" / "FastestDet.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return path


@pytest.fixture(scope="session")
def street_frame() -> np.ndarray:
    path = SHARED / "data" / "eval" / "eval-street-000000.tar"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    with tarfile.open(path) as tar:
        file = tar.extractfile("street000.jpg")
        assert file is not None
        return decode_image(file.read())
