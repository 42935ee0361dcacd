"""What a number was measured on."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """The facts to print beside any measured number."""

    cpu: str
    cores: int
    threads: int
    accelerator: str
    torch: str
    python: str
    date: str


def describe_machine() -> Machine:
    """This machine, with the number of threads that torch is set to."""
    import torch

    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        torch=torch.__version__,
        python=platform.python_version(),
        date=datetime.date.today().isoformat(),
    )


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
