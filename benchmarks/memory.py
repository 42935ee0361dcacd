"""Peak memory of a process and of those it started."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

import psutil


class PeakMemory:
    """Watches a process tree while a `with` block runs.

    `classify` maps a process to a name or None; `peaks` has the largest resident set of one process per name, in MiB.
    """

    def __init__(self, pid: int, classify: Callable[[psutil.Process], str | None], period: float = 0.1) -> None:
        self.peaks: dict[str, float] = {}
        self._root = psutil.Process(pid)
        self._classify = classify
        self._period = period
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self._period):
            try:
                processes = [self._root, *self._root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in processes:
                self._look(process)

    def _look(self, process: psutil.Process) -> None:
        try:
            name = self._classify(process)
            resident = process.memory_info().rss / 2**20
        except psutil.Error:  # it ended between listing and looking
            return
        if name is not None:
            self.peaks[name] = max(self.peaks.get(name, 0.0), resident)
