"""Fixtures of the codec's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

import difficmh
from difficmh.codec import Codec
from tests.difficmh.tiny_capsule import make_tiny_capsule


@pytest.fixture(scope="session")
def tiny_capsule(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a capsule with tiny networks."""
    return make_tiny_capsule(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def lite() -> Codec:
    """The built-in codec."""
    return difficmh.load("lite")


@pytest.fixture(scope="session")
def tiny_codec(tiny_capsule: Path) -> Codec:
    """A codec with tiny networks."""
    return difficmh.load(tiny_capsule)
