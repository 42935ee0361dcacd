"""A session of tests that somebody ends, as schedulers do: what its fixtures started is stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.test_layering import ROOT

TESTS = """
import os, signal, sys, time
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def server():
    yield
    os.kill(os.getpid(), signal.SIGTERM)  # once more, while it is being stopped
    Path("stopped").touch()


def test_one(server):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))  # as Ray's start does


def test_two(server):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def test_three():
    Path("went on").touch()
"""


def test_sigterm_ends_a_session_and_what_it_started(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    options = ["-p", "no:cacheprovider", "-p", "tests.conftest", "-c", os.devnull, "--rootdir", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", *options, "test_it.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 143, done.stdout
    assert "ended by SIGTERM" in done.stdout
    assert (tmp_path / "stopped").exists()
    assert not (tmp_path / "went on").exists()
