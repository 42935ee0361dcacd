"""The largest resident set of a process that the benchmark did not start itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil

from benchmarks.memory import PeakMemory

HOLD = "import sys; held = bytearray(200 << 20); held[::4096] = b'x' * len(held[::4096]); sys.stdin.read()"


def test_peak_memory_sees_what_a_child_held() -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE)

    def name(process: psutil.Process) -> str | None:
        return "child" if process.pid == child.pid else None

    with PeakMemory(os.getpid(), name, period=0.02) as memory:
        deadline = time.monotonic() + 60
        while memory.peaks.get("child", 0) < 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        child.communicate()
    assert child.returncode == 0
    assert 200 < memory.peaks["child"] < 400
