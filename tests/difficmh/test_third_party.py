"""Imports that would print warnings at every start of a job are quiet, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
import warnings

from difficmh.third_party import quiet_torchscript


def test_only_the_deprecation_of_torchscript_is_silenced() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with quiet_torchscript():
            warnings.warn("`torch.jit.script` is deprecated. Switch.", FutureWarning, stacklevel=1)
            warnings.warn("something else is", FutureWarning, stacklevel=1)
        warnings.warn("`torch.jit.script` is deprecated. Switch.", FutureWarning, stacklevel=1)
    assert [str(each.message).split()[0] for each in shown] == ["something", "`torch.jit.script`"]


def test_training_starts_without_a_warning() -> None:
    command = [sys.executable, "-c", "import difficmh.training.rate"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stderr == ""
