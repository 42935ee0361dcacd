"""What a caller may have set in torch, and what must not change a codec: nor does a codec change it for the caller.

A default dtype of bfloat16, a cast that is under way, inference mode: each is common in programs that run networks, and
each would round weights, latents or pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import RLock
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class OnDevice(Protocol):
    """What has a device that it computes on."""

    @property
    def device(self) -> torch.device: ...


Owner = TypeVar("Owner", bound=OnDevice)

_MAKING = RLock()


@contextmanager
def while_making_networks() -> Iterator[None]:
    """Float32 on the CPU, of tensors that know gradients; random numbers that are drawn here are drawn again after.

    Default dtype and random numbers belong to the whole process: threads make their networks one after the other.
    """
    with _MAKING:
        dtype = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            with torch.inference_mode(False), torch.device("cpu"), torch.random.fork_rng(devices=[]):
                yield
        finally:
            torch.set_default_dtype(dtype)


def in_plain_precision(
    method: Callable[Concatenate[Owner, Arguments], Result],
) -> Callable[Concatenate[Owner, Arguments], Result]:
    """A method that runs without gradients, and without a cast of the caller's."""

    @wraps(method)
    def run(self: Owner, /, *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            return method(self, *arguments, **options)

    return run
