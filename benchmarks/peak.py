"""Peak memory of a stretch of work in this process: on a GPU what torch allocated there, else what was resident.

`memory.py` watches other processes; this needs nothing but torch and Linux.
"""

from __future__ import annotations

from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Written to `CLEAR`, sets the peak of the resident memory to what is resident now (man 5 proc)."""


def reset_peak(device: torch.device) -> None:
    """Starts the stretch. Where the system does not allow it, the peak is that since the process started."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return


def peak_bytes(device: torch.device) -> int:
    """The most that was in use at once since `reset_peak`, weights included."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    lines = (line.split() for line in STATUS.read_text().splitlines())
    return next(int(line[1]) * 1024 for line in lines if line[0] == "VmHWM:")
