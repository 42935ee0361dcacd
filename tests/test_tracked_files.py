"""What is under version control: no large files but the model, and no private keys."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.test_layering import ROOT

MAX_BYTES = 1_000_000
PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git, or not a checkout")
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_only_the_weights_are_large(tracked: list[Path]) -> None:
    large = {path.relative_to(ROOT).as_posix() for path in tracked if path.stat().st_size > MAX_BYTES}
    assert large <= {"difficmh/capsules/lite/model.safetensors"}


def test_no_private_keys(tracked: list[Path]) -> None:
    small = [path for path in tracked if path.stat().st_size <= MAX_BYTES]
    assert [path for path in small if PRIVATE_KEY.search(path.read_bytes())] == []
