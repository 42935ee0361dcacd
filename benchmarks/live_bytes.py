"""How many bytes of tensors are alive at once, counted operation by operation, on a device that need not be there."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BLOCK = 512
"""Bytes that torch's CUDA allocator rounds up to."""


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations in its `with` block make on `device_type`, until they are released.

    `now` and `peak` are bytes. Under `FakeTensorMode` nothing is computed or allocated: shapes and dtypes suffice. What
    an operation uses inside, such as the workspace of a convolution, and what lies unused between blocks of the
    allocator is not seen.

    torch's own `MemTracker` counts training: it hangs hooks on gradients, and refuses weights that have none.
    """

    def __init__(self, device_type: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._device_type = device_type
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type == self._device_type:
                self._count(tensor.untyped_storage())
        return result

    def reset_peak(self) -> None:
        """Starts a stretch: the peak becomes what is alive now."""
        self.peak = self.now

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        known = self._known.get(key)
        if known is not None and known() is storage:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK

        def release(gone: weakref.ref[Any]) -> None:
            self.now -= size
            if self._known.get(key) is gone:
                del self._known[key]

        self._known[key] = weakref.ref(storage, release)
        self.now += size
        self.peak = max(self.peak, self.now)
