"""What the jobs that go through shards say of themselves; a driver loads no networks to say it, nor to plan."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EVERY = ("examples:", "exit status\n  0  all well", "to try one again, delete its file in reports/")
OWN = {
    "compress_dataset": ("ray job submit",),
    "decode_dataset": ("ray job submit", "captured_at, camera"),
    "analyze_dataset": ("python:MODULE:FACTORY", "captured_at, camera"),
}
PROGRAM = """
import contextlib, importlib, io, json, sys
shown = {}
for name in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as file, contextlib.suppress(SystemExit):
        importlib.import_module(f"jobs.{name}").main(["--help"])
    shown[name] = file.getvalue()
dry_run = ["--input", "nowhere.tar", "--archive", "nowhere", "--codec", "lite", "--dry-run"]
with contextlib.redirect_stderr(io.StringIO()) as file:
    assert importlib.import_module("jobs.compress_dataset").main(dry_run) == 2
assert "nowhere.tar" in file.getvalue()
assert not {"torch", "timm"} & set(sys.modules)
print(json.dumps(shown))
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The help of each job, all printed by one process that has loaded neither torch nor timm."""
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "", "HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *OWN], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shown: dict[str, str] = json.loads(done.stdout)
    return shown


@pytest.mark.parametrize("job", OWN)
def test_help_has_examples_and_says_what_a_status_means(helps: dict[str, str], job: str) -> None:
    assert [text for text in (*EVERY, *OWN[job], f"jobs/{job}.py") if text not in helps[job]] == []
