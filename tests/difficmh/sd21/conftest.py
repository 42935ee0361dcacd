"""Fixtures of the paper's model."""

from __future__ import annotations

from pathlib import Path

import pytest

import difficmh
from difficmh.codec import Codec
from tests.difficmh.sd21.tiny_sd21 import make_tiny_sd21


@pytest.fixture(scope="session")
def sd21_capsule(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a capsule of the paper's model with tiny networks."""
    return make_tiny_sd21(tmp_path_factory.mktemp("sd21"))


@pytest.fixture(scope="session")
def sd21_codec(sd21_capsule: Path) -> Codec:
    """That codec on the CPU."""
    return difficmh.load(sd21_capsule)
