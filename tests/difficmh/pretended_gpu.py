"""A GPU that is not there: tensors with shape, dtype and device, and no content (torch's `FakeTensorMode`).

An operation over tensors of two devices raises as it would on a real one, so tests without a GPU find what was left on
the CPU. Values, gradients and what reads values back cannot be had; coded symbols are all taken for 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from difficmh import sampler, symbols


@contextmanager
def pretended_gpu(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Moves networks there; they are of no use afterwards."""
    overwriting = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True):
            patch.setattr(symbols, "_integers", _zeros)
            # What is remembered here would be of no use elsewhere.
            patch.setattr(sampler, "_alphas_cumprod_on", sampler._alphas_cumprod_on.__wrapped__)
            for module in modules:
                module.to_empty(device="cuda")
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwriting)


def _zeros(x: Tensor) -> NDArray[np.int32]:
    assert x.is_cuda
    return np.zeros(x.shape, np.int32)
