"""Work of one denoising step of the paper's model on a GPU, counted without one, as JSON.

    python -m benchmarks.sd21_traffic
    python -m benchmarks.sd21_traffic --batch 1 --dtype float32

Networks of full size run on tensors that have shapes and no content, both branches of guidance as one batch, without
torch.compile. Operations that make a tensor of their own are counted, and the bytes that each reads and writes once:
attention is one of them, a norm another. Copies that libraries make inside are not seen.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sd21 import DTYPES
from benchmarks.sd21_memory import actions, fake_networks
from benchmarks.sd21_networks import SIZES


class Traffic(TorchDispatchMode):
    """Counts operations and bytes by the operation's name. Views cost nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        given, made = _storages((args, kwargs)), _storages(found)
        if made.keys() - given.keys():
            name = function.overloadpacket.__name__
            self.calls[name] += 1
            self.bytes[name] += sum(given.values()) + sum(made.values())
        return found


def _storages(values: object) -> dict[int, int]:
    """Bytes of the tensors among values, one for each storage."""
    tensors = (each for each in tree_leaves(values) if isinstance(each, Tensor))
    return {id(each.untyped_storage()): each.numel() * each.element_size() for each in tensors}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", choices=sorted(SIZES), default="full")
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels; default 512")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bfloat16", help="the denoiser's")
    options = parser.parse_args(arguments)
    with FakeTensorMode(), torch.inference_mode():
        sizes = SIZES[options.networks]
        networks = fake_networks(sizes, DTYPES[options.dtype])
        parts = actions(sizes, *networks, (options.batch, options.size))
        with FlopCounterMode(display=False) as work:
            parts["step"]()
        with FlopCounterMode(display=False) as drawing:
            parts["draw"]()
        with Traffic() as traffic:
            parts["step"]()
    report = {
        "step, TFLOP": round(work.get_total_flops() / 1e12, 3),
        "draw, TFLOP": round(drawing.get_total_flops() / 1e12, 3),
        "step, operations": traffic.calls.total(),
        "step, GB": round(traffic.bytes.total() / 1e9, 2),
        "step, GB by operation": {name: round(count / 1e9, 2) for name, count in traffic.bytes.most_common(12)},
        "setting": vars(options),
        "torch": torch.__version__,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
