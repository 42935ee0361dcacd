"""What a GPU takes together, and that pictures read together are the same, and as damaged, as each alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import difficmh
from difficmh.bitstream import pack, unpack
from difficmh.codec import Codec
from difficmh.errors import BitstreamError
from difficmh.groups import Kind, groups
from tests.difficmh.sd21.tiny_sd21 import make_tiny_sd21
from tests.difficmh.tiny_capsule import photograph

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([], []),
        ([(64, 64, 1), (64, 128, 1), (64, 64, 2), (64, 64, 1)], [[0, 3], [1], [2]]),
        ([(64, 64)] * 19, [list(range(8)), list(range(8, 16)), [16, 17, 18]]),
        ([(2048, 2048)] * 3, [[0, 1], [2]]),
        ([(8192, 8192)] * 2, [[0], [1]]),
    ],
)
def test_a_gpu_takes_pictures_of_one_kind_together(kinds: list[Kind], expected: list[list[int]]) -> None:
    assert list(groups(kinds, GPU)) == expected
    assert sorted(groups(kinds, CPU)) == [[position] for position in range(len(kinds))]


@pytest.fixture(scope="module", params=["lite", "sd21"])
def codec(request: pytest.FixtureRequest, tiny_codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    folder: Path = tmp_path_factory.mktemp("sd21")
    return tiny_codec if request.param == "lite" else difficmh.load(make_tiny_sd21(folder))


@pytest.fixture
def streams(codec: Codec) -> list[bytes]:
    """Three of one size, of several tiles each, and one of another."""
    pictures = [photograph(130, 300, seed) for seed in range(3)]
    return codec.compress([*pictures, photograph(64, 64)], tags=[[], [codec.prior.names[0]], [], []])


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a CPU take the first three together, not in order."""
    monkeypatch.setattr("difficmh.groups.groups", lambda kinds, device: iter([[1, 2, 0], [3]]))


def test_a_batch_is_read_to_the_bit_as_each_of_its_streams(
    codec: Codec, streams: list[bytes], request: pytest.FixtureRequest
) -> None:
    alone = [codec.read(stream) for stream in streams]
    request.getfixturevalue("batches")
    together = codec.read_all(streams)
    for one, other in zip(alone, together, strict=True):
        assert (one.header, one.tags, one.seed) == (other.header, other.tags, other.seed)
        assert torch.equal(one.latents.y_hat, other.latents.y_hat)
        assert torch.equal(one.latents.z_symbols, other.latents.z_symbols)
        assert one.latents.z_symbols.dtype == other.latents.z_symbols.dtype == torch.int32


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_one_damaged_stream_of_a_batch_is_an_error(codec: Codec, streams: list[bytes], damaged: int) -> None:
    """Symbols that are not those that were encoded, under a valid frame; whoever wants to know which reads each."""
    frame = unpack(streams[damaged])
    streams[damaged] = pack(frame.header, frame.payload, frame.symbol_checksum ^ 1)
    with pytest.raises(BitstreamError, match="not those that were encoded"):
        codec.read_all(streams)
    with pytest.raises(BitstreamError, match="not those that were encoded"):
        codec.decompress(streams, mode="preview")
