"""What SIGTERM does to a session of tests: the same as Ctrl-C, so that servers and clusters end with it."""

from __future__ import annotations

import signal
from threading import current_thread, main_thread
from types import FrameType

import pytest


def end_by_sigterm() -> None:
    """Lets SIGTERM end this process's session from now on, with all fixtures torn down."""
    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    # The next one, as where a group of processes is ended, would end the tearing down. No SIG_IGN: children inherit it.
    signal.signal(number, lambda *_: None)
    pytest.exit("ended by SIGTERM", returncode=128 + number)
