"""The same bytes give the same symbols under every processor setting, and streams travel between settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import difficmh
from tests.golden.regenerate import CASES, GOLDEN, digest

ROOT = Path(__file__).parents[2]
CAPABILITIES = ("DEFAULT", "AVX2", "AVX512")
ONEDNN = {"DEFAULT": "SSE41", "AVX2": "AVX2", "AVX512": "AVX512_CORE"}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "sse4, one thread": ("DEFAULT", {"threads": 1}),
    "avx2, two threads": ("AVX2", {"threads": 2}),
    "avx512, two threads": ("AVX512", {"threads": 2}),
    "sse4, four threads, channels first": ("DEFAULT", {"threads": 4, "channels_last": False}),
}
"""Name: the processor's instructions that may be used, and the rest."""


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, Any]]:
    return json.loads((GOLDEN / "expected.json").read_text())


def probe(settings: dict[str, Any], environment: dict[str, str], streams: list[bytes]) -> dict[str, Any]:
    request = {"device": "cpu", "channels_last": True, **settings, "streams": [stream.hex() for stream in streams]}
    done = subprocess.run(
        [sys.executable, "-m", "tests.difficmh.exactness_probe"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CASES)
def test_golden_streams_decode_to_the_bit(lite: difficmh.codec.Codec, expected: dict[str, Any], name: str) -> None:
    stream = (GOLDEN / f"{name}.dicm").read_bytes()
    assert difficmh.inspect(stream).tags == tuple(expected[name]["tags"])
    assert digest(lite, stream) == expected[name]["sha256"]


@pytest.mark.parametrize("name", CASES)
def test_golden_previews_agree_up_to_rounding(lite: difficmh.codec.Codec, name: str) -> None:
    (decoded,) = lite.decompress([(GOLDEN / f"{name}.dicm").read_bytes()], mode="preview")
    with Image.open(GOLDEN / f"{name}.preview.png") as image:
        golden = np.asarray(image).astype(np.int16)
    pixels = (255 * decoded).round().permute(1, 2, 0).numpy().astype(np.int16)
    assert np.abs(pixels - golden).max() <= 1


@pytest.mark.slow
@pytest.mark.timeout(300)  # a process with torch; slow where other work takes the cores
@pytest.mark.parametrize("name", SETTINGS)
def test_streams_travel_between_processor_settings(
    expected: dict[str, Any], lite: difficmh.codec.Codec, name: str
) -> None:
    """Streams from here decode there, a stream encoded there decodes here, to the same symbols."""
    capability, settings = SETTINGS[name]
    here = torch.backends.cpu.get_cpu_capability()
    if here in CAPABILITIES and CAPABILITIES.index(capability) > CAPABILITIES.index(here):
        pytest.skip(f"this processor has {here} at most")
    streams = [(GOLDEN / f"{case}.dicm").read_bytes() for case in CASES]
    environment = {"ONEDNN_MAX_CPU_ISA": ONEDNN[capability], "ATEN_CPU_CAPABILITY": capability.lower()}
    result = probe(settings, environment, streams)
    if here in CAPABILITIES:  # other architectures ignore these variables
        assert result["capability"] == capability
    assert result["threads"] == settings["threads"]
    assert result["digests"] == [expected[case]["sha256"] for case in CASES]
    assert digest(lite, bytes.fromhex(result["stream"])) == result["own"]


@pytest.mark.gpu
def test_a_gpu_reads_and_writes_the_same_streams(expected: dict[str, Any], lite: difficmh.codec.Codec) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    streams = [(GOLDEN / f"{name}.dicm").read_bytes() for name in CASES]
    result = probe({"device": "cuda", "threads": 2}, {}, streams)
    assert result["digests"] == [expected[name]["sha256"] for name in CASES]
    assert digest(lite, bytes.fromhex(result["stream"])) == result["own"]
