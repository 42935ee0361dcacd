"""What a caller may have set in torch, and what must not change a codec: nor does a codec change it for the caller.

A default dtype of bfloat16, a cast that is under way, inference mode, products of float32 in TF32 (torch's own default
for convolutions on a GPU): each is common in programs that run networks, and each would round weights, latents or
pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from threading import Lock, RLock
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Setting = TypeVar("Setting")


class OnDevice(Protocol):
    """What has a device that it computes on."""

    @property
    def device(self) -> torch.device: ...


Owner = TypeVar("Owner", bound=OnDevice)

_MAKING = RLock()
_CONVOLUTIONS: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # torch declares no such attribute


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


@dataclass(frozen=True)
class Tf32Settings:
    """Of the whole process: what a GPU may round to TF32's 10 bits in float32 convolutions and matrix products.

    `convolutions` and `products` are "tf32", "ieee", or "none" where nothing is set. torch has older settings for the
    same (`torch.backends.cudnn.allow_tf32`, `torch.get_float32_matmul_precision`), which refuse to be read where they
    contradict these, and torch.compile reads them; None where a program has set them at odds already.
    """

    convolutions: str
    products: str
    older_convolutions: bool | None
    older_products: str | None

    @classmethod
    def read(cls) -> Self:
        """Those of this moment."""
        return cls(
            convolutions=_CONVOLUTIONS.fp32_precision,
            products=torch.backends.cuda.matmul.fp32_precision,
            older_convolutions=_unless_at_odds(lambda: torch.backends.cudnn.allow_tf32),
            older_products=_unless_at_odds(torch.get_float32_matmul_precision),
        )

    def apply(self) -> None:
        """Sets them; the older ones first, because they set the newer ones too."""
        if self.older_convolutions is not None:
            torch.backends.cudnn.allow_tf32 = self.older_convolutions
        if self.older_products not in (None, _unless_at_odds(torch.get_float32_matmul_precision)):
            torch.set_float32_matmul_precision(self.older_products)
        _CONVOLUTIONS.fp32_precision = self.convolutions
        torch.backends.cuda.matmul.fp32_precision = self.products

    def without(self) -> Tf32Settings:
        """Nothing is rounded."""
        return Tf32Settings(
            convolutions="ieee",
            products="ieee",
            older_convolutions=None if self.older_convolutions is None else False,
            older_products=None if self.older_products is None else "highest",
        )


def _unless_at_odds(read: Callable[[], Setting]) -> Setting | None:
    try:
        return read()
    except RuntimeError:
        return None


class WithoutTf32(AbstractContextManager[None]):
    """While anybody is within, float32 is float32 on a GPU.

    Networks of other threads feel it: the first to enter saves the program's settings and changes them, the last to
    leave restores them.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._within = 0
        self._before = Tf32Settings.read()

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._before = Tf32Settings.read()
                self._before.without().apply()
            self._within += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                self._before.apply()


_WITHOUT_TF32 = WithoutTf32()


def in_full_float32(device: torch.device) -> AbstractContextManager[None]:
    """Around what computes in float32 on this device: without TF32 on a GPU; no other device has it."""
    return _WITHOUT_TF32 if device.type == "cuda" else nullcontext()


def in_plain_precision(
    method: Callable[Concatenate[Owner, Arguments], Result],
) -> Callable[Concatenate[Owner, Arguments], Result]:
    """A method that runs without gradients, without a cast of the caller's, and without TF32."""

    @wraps(method)
    def run(self: Owner, /, *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        device = self.device
        with torch.inference_mode(), torch.autocast(device.type, enabled=False), in_full_float32(device):
            return method(self, *arguments, **options)

    return run
