"""Memory that decoding with the paper's model needs on a GPU, counted without one, as JSON.

    python -m benchmarks.sd21_memory
    python -m benchmarks.sd21_memory --size 768 --batch-sizes 1 4 --dtype float32

Networks of full size run on tensors that have shapes and no content (`FakeTensorMode`), and `live_bytes.py` counts what
is alive at once. It takes seconds, and 1 GB for the latent codec, whose integer copies are made for real. Attention
counts as the fused kernel that a GPU has: its weights are never stored. What comes on top only `benchmarks/sd21.py` can
measure, on a GPU: workspaces of convolutions, the allocator's gaps, CUDA's context, and activations of the text tower
and of entropy coding.

step      one denoising step, both branches of guidance as one batch
draw      the autoencoder's decoder, as the codec runs it: one image at a time, tiled where it is large
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.live_bytes import LiveBytes
from benchmarks.sd21 import DTYPES, MIDDLE_STEP, TARGETS
from benchmarks.sd21_networks import GUIDANCE, SIZES, Sizes, random_lfgcm
from difficmh.sd21.denoiser import Conditioning, Denoiser, noise_model
from difficmh.sd21.text import BEGIN, END, TextConditioner
from difficmh.sd21.vae import LatentAutoencoder
from difficmh.tiling import LATENT_STRIDE

DEVICE = "cuda"


@dataclass(frozen=True)
class Need:
    """Gigabytes (10^9 bytes) at the worst moment of a part, weights of all networks but the tagger included."""

    batch: int
    part: str
    peak_gb: float


@dataclass(frozen=True)
class Weights:
    """Gigabytes of each network; the latent codec's with its integer copies."""

    denoiser: float
    autoencoder: float
    text: float
    lfgcm: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", choices=sorted(SIZES), default="full")
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels; default 512")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=(1, 8))
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bfloat16", help="the denoiser's")
    options = parser.parse_args(arguments)
    if options.size < LATENT_STRIDE or options.size % LATENT_STRIDE or min(options.batch_sizes) < 1:
        parser.error(f"--size must be a multiple of {LATENT_STRIDE}, --batch-sizes positive")
    weights, needs = count(SIZES[options.networks], options.size, options.batch_sizes, DTYPES[options.dtype])
    report = {
        "decode, GB": {"counted": max(need.peak_gb for need in needs), "target": TARGETS["decode, GB"]},
        "weights": asdict(weights),
        "parts": [asdict(need) for need in needs],
        "setting": vars(options),
        "torch": torch.__version__,
    }
    print(json.dumps(report, indent=2))


def count(sizes: Sizes, size: int, batches: Sequence[int], dtype: torch.dtype) -> tuple[Weights, list[Need]]:
    """Weights, and what each part needs at each batch size for square images of `size` pixels."""
    lfgcm, text = module_bytes(random_lfgcm(sizes, torch.device("cpu"))), text_bytes(sizes)
    needs = []
    with FakeTensorMode(), torch.inference_mode(), LiveBytes(DEVICE) as live:
        denoiser, autoencoder = fake_networks(sizes, dtype)
        sums = (module_bytes(denoiser), module_bytes(autoencoder), text, lfgcm)
        for batch in batches:
            for part, action in actions(sizes, denoiser, autoencoder, (batch, size)).items():
                live.reset_peak()
                action()
                needs.append(Need(batch, part, round((live.peak + text + lfgcm) / 1e9, 2)))
    return Weights(*(round(each / 1e9, 2) for each in sums)), needs


def fake_networks(sizes: Sizes, dtype: torch.dtype) -> tuple[Denoiser, LatentAutoencoder]:
    """Denoiser in `dtype` and autoencoder in float32, as the codec loads them; without content."""
    with torch.device(DEVICE):
        # Modules of fake tensors cannot be converted, so the denoiser is made in its precision.
        usual = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            denoiser = Denoiser(sizes.denoiser)
        finally:
            torch.set_default_dtype(usual)
        autoencoder = LatentAutoencoder(sizes.autoencoder)
    autoencoder.save_memory(slicing=True, tiling=True)  # as the codec has it
    return denoiser.eval(), autoencoder.eval()


def text_bytes(sizes: Sizes) -> int:
    """The text tower's: transformers cannot build it of fake tensors, so it takes no part in the rest."""
    with torch.device("meta"):
        return module_bytes(TextConditioner(sizes.text, lambda _: [BEGIN, END]))


def actions(
    sizes: Sizes, denoiser: Denoiser, autoencoder: LatentAutoencoder, shape: tuple[int, int]
) -> dict[str, Callable[[], Tensor]]:
    """The parts, ready to run, for `shape`: images in a batch, their side in pixels."""
    batch, size = shape
    side = size // LATENT_STRIDE
    guide = torch.randn(batch, 4, side, side, device=DEVICE)
    empty, context = (torch.randn(n, sizes.text.positions, sizes.text.width, device=DEVICE) for n in (1, batch))
    estimate = noise_model(denoiser, Conditioning(guide, context, empty, GUIDANCE))
    return {"step": lambda: estimate(guide, MIDDLE_STEP), "draw": lambda: autoencoder.decode(guide)}


def module_bytes(module: nn.Module) -> int:
    """Parameters and buffers, each storage once."""
    tensors = (*module.parameters(), *module.buffers())
    return sum({id(each.untyped_storage()): each.untyped_storage().nbytes() for each in tensors}.values())


if __name__ == "__main__":
    main()
