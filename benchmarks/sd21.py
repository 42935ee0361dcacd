"""Speed and memory of the paper's model with random weights at full size, as JSON.

    python -m benchmarks.sd21                                        # on a GPU if there is one: float32 and bfloat16
    python -m benchmarks.sd21 --device cpu --size 256 --steps 2 --batch-sizes 1 --dtypes float32
    python -m benchmarks.sd21 --compiled --dtypes bfloat16 --parts loops step decode
    python -m benchmarks.sd21 --networks small --size 64 --steps 2   # shows in seconds that everything runs
    python -m benchmarks.sd21 --device cpu --parts entropy --size 256 --threads 1

Nothing is read or downloaded, and of this project's requirements only torch, numpy, diffusers, transformers and
compressai are needed (`tagger`, which is not among the default parts, needs timm too). Full size takes 9 GB of memory.

encode    image to symbols' bytes: autoencoder, analysis, entropy coding; without the tagger
preview   bytes to picture without diffusion: entropy decoding, synthesis, autoencoder
step      one denoising step, both branches of guidance as one batch
noise     what the streams' noise of one step takes
decode    bytes to picture: entropy decoding, text, all denoising steps, autoencoder
tagger    RAM++
entropy   the exact entropy networks against floating point, and the official coder (`sd21_entropy.py`)
loops     guide latent to picture, as a batch in the last of the dtypes, against one by one in float32 with two calls

`--dtypes` are the denoiser's; all else runs in float32, without TF32. Peaks count everything that is in memory, weights
included. What is measured goes to stderr at once, the ratio of the loops first, and to stdout as JSON at the end.
Symbols that are not decoded as they were encoded end the run with an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import describe_machine
from benchmarks.peak import peak_bytes, reset_peak
from benchmarks.sd21_entropy import EntropyCosts, entropy_costs
from benchmarks.sd21_networks import (
    SIZES,
    Networks,
    conditioning,
    encode,
    noise_field,
    random_lfgcm,
    random_networks,
    read_guide,
    reconstruct,
    reconstruct_one_by_one,
)
from benchmarks.timing import Action, device_clock, time_in_rounds
from difficmh.limits import DEVICES
from difficmh.sd21.denoiser import noise_model
from difficmh.surroundings import Tf32Settings, in_full_float32
from difficmh.tiling import LATENT_STRIDE, Z_STRIDE

PARTS = ("encode", "preview", "step", "noise", "decode", "tagger", "entropy", "loops")
TIMED = PARTS[:6]
INDEPENDENT = {"encode", "preview", "noise", "tagger"}
"""Parts that do without the denoiser, whose dtype makes no difference to them."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MIDDLE_STEP = 500
COMPILERS = ("default", "reduce-overhead")
"""Modes of torch.compile."""

TARGETS = {"batched / one by one": 8.0, "decode, GB": 8.0}
"""The targets on one GPU: at least so many times the images/s, at batch 8 in bfloat16; at most so much memory,
at 512 x 512 in bfloat16."""


@dataclass(frozen=True)
class Setting:
    """What to measure. `size` is the side of the square images in pixels, a multiple of 64."""

    device: str
    networks: str
    size: int
    batch_sizes: tuple[int, ...]
    dtypes: tuple[str, ...]
    parts: tuple[str, ...]
    steps: int
    rounds: int
    threads: int
    contiguous: bool
    compiled: str | None
    tf32: bool


@dataclass(frozen=True)
class Measurement:
    """One part at one batch size: the best of its rounds; None where the device ran out of memory."""

    part: str
    dtype: str
    batch: int
    seconds: float | None
    images_per_second: float | None
    peak_gb: float | None


@dataclass(frozen=True)
class Loops:
    """Images per second from guide latent to picture, and how many times faster the batch is."""

    one_by_one: float
    batched: float
    ratio: float
    batch: int
    dtype: str


def main(arguments: Sequence[str] | None = None) -> None:
    setting = parse_arguments(arguments)
    torch.set_num_threads(setting.threads)
    torch.manual_seed(0)
    sizes, device = SIZES[setting.networks], torch.device(setting.device)
    costs, loops, found = None, None, []
    with torch.inference_mode(), nullcontext() if setting.tf32 else in_full_float32(device):
        if set(setting.parts) != {"entropy"}:
            networks = random_networks(sizes, device)
            loops = loops_that_fit(networks, setting) if "loops" in setting.parts else None
            found = list(measure_all(networks, setting))
        if "entropy" in setting.parts:
            costs = entropy_costs(random_lfgcm(sizes, device), setting.size, setting.rounds)
        report = summary(setting, found, costs, loops)
    print(json.dumps(report, indent=2))


def tell(**measured: object) -> None:
    """Says it at once: a run that is stopped at a time limit has not measured in vain."""
    print(json.dumps(measured), file=sys.stderr, flush=True)


def parse_arguments(arguments: Sequence[str] | None) -> Setting:
    """Ends the program with a message where sizes or counts are impossible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", choices=DEVICES, default="cuda" if torch.cuda.is_available() else "cpu")
    add("--networks", choices=sorted(SIZES), default="full")
    add("--size", type=int, default=512, help="side of the images in pixels, a multiple of 64; default 512")
    add("--batch-sizes", type=int, nargs="+", default=(1, 8))
    add("--dtypes", choices=sorted(DTYPES), nargs="+", default=("float32", "bfloat16"))
    add("--parts", choices=PARTS, nargs="+", default=tuple(part for part in PARTS if part != "tagger"))
    add("--steps", type=int, default=50, help="denoising steps of decode and loops; default 50")
    add("--rounds", type=int, default=3)
    add("--threads", type=int, default=torch.get_num_threads())
    add("--contiguous", action="store_true", help="plain memory layout; default: channels last, as the codec has it")
    graphs = "the denoiser goes through torch.compile, anew for each batch size; reduce-overhead: into CUDA graphs too"
    add("--compiled", nargs="?", choices=COMPILERS, const=COMPILERS[0], help=graphs)
    add("--tf32", action="store_true", help="float32 as torch runs it on a GPU where nobody says otherwise")
    options = vars(parser.parse_args(arguments))
    if options["size"] < Z_STRIDE or options["size"] % Z_STRIDE:
        parser.error(f"--size must be a multiple of {Z_STRIDE}")
    if min(options["steps"], options["rounds"], options["threads"], *options["batch_sizes"]) < 1:
        parser.error("--steps, --rounds, --threads and --batch-sizes must be positive")
    lists = {name: tuple(options[name]) for name in ("batch_sizes", "dtypes", "parts")}
    return Setting(**{**options, **lists})


# --- measuring


def measure_all(networks: Networks, setting: Setting) -> Iterator[Measurement]:
    """Every timed part at every batch size and dtype; those without the denoiser at the first dtype only."""
    for dtype in setting.dtypes:
        prepare(networks, setting, dtype)
        wanted = [part for part in TIMED if part in setting.parts]
        parts = [part for part in wanted if part not in INDEPENDENT or dtype == setting.dtypes[0]]
        for batch in setting.batch_sizes:
            try:
                ready = actions(networks, setting, batch)
            except torch.OutOfMemoryError:  # what the parts start from does not fit, so none of them does
                yield from (Measurement(part, dtype, batch, None, None, None) for part in parts)
            else:
                for part in parts:
                    measured = measure(part, ready[part], setting, dtype, batch)
                    tell(**asdict(measured))
                    yield measured


def prepare(networks: Networks, setting: Setting, dtype: str) -> None:
    """Puts the denoiser into a precision and, where wanted, torch.compile's hands; the layout is the codec's."""
    networks.convert(DTYPES[dtype])
    if not setting.contiguous:
        networks.denoiser.to(memory_format=torch.channels_last)
        networks.autoencoder.to(memory_format=torch.channels_last)
    if setting.compiled:
        networks.denoiser.compile(mode=setting.compiled, dynamic=False)  # as the codec does it, whatever ran before


def measure(part: str, action: Action, setting: Setting, dtype: str, batch: int) -> Measurement:
    """The best of some rounds after one to warm up."""
    device = torch.device(setting.device)
    reset_peak(device)
    try:
        timings = time_in_rounds({part: action}, setting.rounds, device_clock(device))
    except torch.OutOfMemoryError:
        return Measurement(part, dtype, batch, None, None, None)
    seconds = timings.best(part)
    return Measurement(part, dtype, batch, round(seconds, 4), round(batch / seconds, 3), _gigabytes(peak_bytes(device)))


def _gigabytes(count: int) -> float:
    return round(count / 1e9, 2)


def actions(networks: Networks, setting: Setting, batch: int) -> dict[str, Action]:
    """The parts, ready to run on random images; the tagger where it is wanted."""
    images = torch.rand(batch, 3, setting.size, setting.size, device=setting.device)
    z_size = (setting.size // Z_STRIDE,) * 2
    streams = encode(networks, images)
    read_guide(networks, streams[:1], z_size)  # what was written as a batch is read alone; the parts read it as a batch
    guide = random_guide(setting, batch)
    estimate = noise_model(networks.denoiser, conditioning(networks, guide))
    found: dict[str, Action] = {
        "encode": lambda: encode(networks, images),
        "preview": lambda: networks.autoencoder.decode(read_guide(networks, streams, z_size)),
        "step": lambda: estimate(guide, MIDDLE_STEP),
        "noise": lambda: noise_field(guide).at(MIDDLE_STEP),
        "decode": lambda: reconstruct(networks, read_guide(networks, streams, z_size), setting.steps),
    }
    if "tagger" in setting.parts:
        found["tagger"] = tagger_action(setting, batch)
    return found


def random_guide(setting: Setting, batch: int) -> Tensor:
    """`(B, 4, H/8, W/8)`, as scattered as a latent is."""
    side = setting.size // LATENT_STRIDE
    return torch.randn(batch, 4, side, side, device=setting.device)


def tagger_action(setting: Setting, batch: int) -> Action:
    """RAM++ at full size, whatever the other networks have; it needs timm."""
    from difficmh.taggers.ram import RamNetwork, RamTagger
    from difficmh.taggers.ram_head import RamConfig
    from difficmh.taggers.ram_tags import TagList

    config = RamConfig()
    tags = TagList(tuple(f"tag {number}" for number in range(config.tags)), (0.65,) * config.tags)
    tagger = RamTagger(RamNetwork(config), tags, setting.device)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, setting.size, setting.size, 3), np.uint8)
    return lambda: tagger(list(pixels))


def loops_that_fit(networks: Networks, setting: Setting) -> Loops | None:
    """None where the device has too little memory for either: the other parts may still fit."""
    try:
        return compare_loops(networks, setting)
    except torch.OutOfMemoryError:
        return None


def compare_loops(networks: Networks, setting: Setting) -> Loops:
    """Both ways from the same guide latents to pictures, one after the other; networks are fresh, in float32."""
    batch, dtype = max(setting.batch_sizes), setting.dtypes[-1]
    clock = device_clock(torch.device(setting.device))
    guide = random_guide(setting, batch)
    alone: dict[str, Action] = {"loop": lambda: reconstruct_one_by_one(networks, guide[:1], setting.steps)}
    one_by_one = 1 / time_in_rounds(alone, setting.rounds, clock).best("loop")
    tell(one_by_one=one_by_one)
    prepare(networks, setting, dtype)
    together: dict[str, Action] = {"loop": lambda: reconstruct(networks, guide, setting.steps)}
    batched = batch / time_in_rounds(together, setting.rounds, clock).best("loop")
    loops = Loops(round(one_by_one, 4), round(batched, 4), round(batched / one_by_one, 2), batch, dtype)
    tell(**asdict(loops))
    return loops


# --- report


def summary(
    setting: Setting, found: Sequence[Measurement], costs: EntropyCosts | None, loops: Loops | None
) -> dict[str, object]:
    """Ratio and memory first, beside their targets; what was not measured is null."""
    decodes = [m.peak_gb for m in found if m.part == "decode" and m.dtype == "bfloat16" and m.batch == 1]
    return {
        "targets": {
            "batched / one by one": {
                "measured": loops.ratio if loops else None,
                "target": TARGETS["batched / one by one"],
            },
            "decode, GB": {"measured": decodes[0] if decodes else None, "target": TARGETS["decode, GB"]},
        },
        "parts": [asdict(measurement) for measurement in found],
        "entropy": asdict(costs) if costs else None,
        "loops": asdict(loops) if loops else None,
        "tf32": asdict(Tf32Settings.read()),
        "setting": asdict(setting),
        "machine": asdict(describe_machine()),
    }


if __name__ == "__main__":
    main()
