"""How close the pixels come: PSNR, MS-SSIM and, where asked for, SSIMULACRA 2 (`difficmh/metrics.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from difficmh.evaluation.graders import Evidence, Image, Picture
from difficmh.evaluation.statistics import Metric, mean
from difficmh.metrics import ms_ssim_db, psnr, ssimulacra2

PSNR = Metric("psnr", "PSNR (dB)", mean)
MS_SSIM = Metric("ms_ssim_db", "MS-SSIM (dB)", mean)
SSIMULACRA2 = Metric("ssimulacra2", "SSIMULACRA 2", mean, note="100 identical, 90 visually lossless, 50 medium")


class Fidelity:
    """PSNR and MS-SSIM."""

    metrics: Sequence[Metric] = (PSNR, MS_SSIM)

    def reference(self, picture: Picture) -> Image:
        return picture.pixels

    def grade(self, reference: Image, decoded: Image) -> Evidence:
        return {"psnr": psnr(reference, decoded), "ms_ssim_db": ms_ssim_db(reference, decoded)}


class Ssimulacra2:
    """SSIMULACRA 2, about a second for a picture. Raises ValueError where its package is missing."""

    metrics: Sequence[Metric] = (SSIMULACRA2,)

    def __init__(self) -> None:
        if find_spec("ssimulacra2") is None:
            raise ValueError("the measure ssimulacra2 needs a package: pip install ssimulacra2")

    def reference(self, picture: Picture) -> Image:
        return picture.pixels

    def grade(self, reference: Image, decoded: Image) -> Evidence:
        return {"ssimulacra2": ssimulacra2(reference, decoded)}
