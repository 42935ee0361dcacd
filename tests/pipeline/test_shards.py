"""Shards to samples: the WebDataset rules, the shapes found in the wild, damage, and memory."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Failure, Sample
from pipeline.shards import ShardReader, read_shard
from tests.corpora import (
    image_bytes,
    jpeg,
    odd_shards,
    picture,
    shard_bytes,
    special_member,
    tar_bytes,
    truncated,
)
from tests.pipeline.reading_shards import URL, A, B, C, keys, read, read_members


def test_ordinary_shard() -> None:
    samples, failures, skipped = read(shard_bytes(3))
    assert [sample.key for sample in samples] == ["000000", "000001", "000002"]
    assert samples[1].image == jpeg(1)
    assert samples[1].image_name == "000001.jpg"
    assert samples[1].metadata == {"json": {"index": 1, "camera": "cam-1"}, "cls": "1"}
    assert (failures, skipped) == ([], 0)


def test_gzipped_shard_is_the_same() -> None:
    assert read(shard_bytes(3, compress=True)) == read(shard_bytes(3))


@pytest.mark.parametrize("name", odd_shards())
def test_odd_shards_never_raise(name: str) -> None:
    samples, failures, skipped = read(odd_shards()[name])
    expected = {
        "empty": (0, 0, 0),
        "zero-bytes": (0, 1, 0),
        "no-images": (0, 0, 2),
        "zero-byte-image": (2, 1, 0),
        "not-an-image": (3, 0, 0),  # its name says image: decoding will tell
        "broken-image": (3, 0, 0),
        "twice-under-one-key": (2, 0, 0),
        "wrong-extension": (3, 0, 0),
        "upper-case": (1, 0, 0),
        "stereo": (2, 0, 0),
        "unsorted": (2, 0, 0),
        "bad-json": (1, 0, 0),
        "not-a-tar": (0, 1, 0),
        "gzip": (2, 0, 0),
    }
    if name in expected:
        assert (len(samples), len(failures), skipped) == expected[name]
    else:
        assert [failure.stage for failure in failures] == ["read"]


class TestWhatIsAnImage:
    def test_content_counts_more_than_the_extension(self) -> None:
        png = image_bytes(picture(1), "PNG")
        samples, _, _ = read_members(("a.txt", A), ("b", png), ("c.JPEG", B), ("d.bin", C))
        assert [sample.image for sample in samples] == [A, png, B, C]

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF"])
    def test_every_format_without_extension(self, format: str) -> None:
        assert keys(("a", image_bytes(picture(1), format))) == ["a"]

    @pytest.mark.parametrize("name", ["a.jxl", "a.cr3", "a.NEF", "a.hif", "a.jpx"])
    def test_formats_that_are_not_decoded_are_images_all_the_same(self, name: str) -> None:
        """So that they become rejects with their bytes, not labels or nothing at all."""
        assert keys((name, b"any bytes")) == ["a"]

    @pytest.mark.parametrize("text", [b"BM is how this begins, and it goes on for a while", b"RIFF raff", b"GIF", b""])
    def test_text_is_no_image(self, text: bytes) -> None:
        samples, _, _ = read_members(("a.jpg", A), ("a.txt", text))
        assert [sample.metadata for sample in samples] == [{"txt": text.decode()}]

    def test_upper_case_extensions(self) -> None:
        samples, _, _ = read_members(("A.JPG", A), ("A.JSON", b'{"x": 1}'))
        assert [(sample.key, sample.metadata) for sample in samples] == [("A", {"json": {"x": 1}})]

    def test_traces_of_systems_are_passed_over(self) -> None:
        samples, failures, skipped = read_members(
            special_member("dir", tarfile.DIRTYPE),
            ("._a.jpg", b"\0\5\x16\7"),
            ("__MACOSX/a.jpg", A),
            (".DS_Store", b"x"),
            ("__meta__", b"x"),
            ("dir/a.jpg", A),
        )
        assert [sample.key for sample in samples] == ["dir/a"]
        assert (failures, skipped) == ([], 0)

    @pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
    def test_an_image_that_is_a_link_fails_instead_of_being_left_out(self, kind: bytes) -> None:
        link, text = special_member("b.jpg", kind, "a.jpg"), special_member("c.txt", kind, "a.txt")
        samples, failures, skipped = read_members(("a.jpg", A), link, ("b.json", b"1"), text)
        assert [sample.key for sample in samples] == ["a"]
        assert [(failure.key, failure.stage) for failure in failures] == [("b", "read")]
        assert "b.jpg is a link" in failures[0].error
        assert skipped == 1


class TestDamage:
    def test_cut_shard_keeps_what_came_before_and_names_the_rest(self) -> None:
        data = shard_bytes(4).rstrip(b"\0")
        for keep in (0.2, 0.5, 0.8, 1.0):
            samples, failures, _ = read(truncated(data, keep))
            assert [sample.image for sample in samples] == [jpeg(seed) for seed in range(len(samples))]
            assert len(samples) - int(4 * keep) in (0, 1)
            assert [failure.stage for failure in failures] == ["read"]

    def test_sample_of_the_cut_image_is_named(self) -> None:
        data = tar_bytes([("a.jpg", A), ("b.json", b"{}"), ("b.jpg", B)])
        cut = data.index(B) + 10
        samples, failures, _ = read(data[:cut])
        assert [sample.key for sample in samples] == ["a"]
        assert [(failure.key, failure.stage) for failure in failures] == [("b", "read")]

    def test_zero_byte_image(self) -> None:
        samples, failures, skipped = read_members(("a.jpg", b""), ("a.json", b"{}"), ("b.jpg", B))
        assert [sample.key for sample in samples] == ["b"]
        assert [(failure.key, failure.error) for failure in failures] == [("a", "a.jpg has zero bytes")]
        assert skipped == 0

    def test_huge_image_is_rejected_without_being_read(self) -> None:
        info = tarfile.TarInfo("huge.jpg")
        info.size = 400 << 20
        tracemalloc.start()
        try:
            records = list(read_shard(Parts([info.tobuf(), info.size, tar_bytes([("a.jpg", A)])]), URL))
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()
        assert [type(record) for record in records] == [Failure, Sample]
        assert records[0].key == "huge"

    def test_errors_of_the_source_are_passed_on(self) -> None:
        reader = read_shard(Parts([shard_bytes(40)[:30_000], ConnectionResetError("gone")]), URL)
        with pytest.raises(ConnectionResetError):
            list(reader)

    @given(st.data())
    def test_flipped_bytes_never_raise(self, data: st.DataObject) -> None:
        damaged = bytearray(shard_bytes(2, compress=data.draw(st.booleans())))
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        read(bytes(damaged))


def test_memory_does_not_grow_with_the_shard() -> None:
    picture = jpeg(1) + bytes(1 << 20)

    def pieces() -> Iterator[bytes]:
        for index in range(150):
            info = tarfile.TarInfo(f"{index:06d}.jpg")
            info.size = len(picture)
            yield info.tobuf() + picture + bytes(-len(picture) % 512)
        yield bytes(1024)

    tracemalloc.start()
    try:
        count = sum(isinstance(record, Sample) for record in read_shard(Parts(pieces()), URL))
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
    finally:
        tracemalloc.stop()
    assert count == 150


def test_reader_counts_while_it_reads() -> None:
    reader = read_shard(io.BytesIO(tar_bytes([("a.txt", b""), ("b.jpg", B)])), URL)
    assert isinstance(reader, ShardReader)
    assert isinstance(next(reader), Sample)
    with pytest.raises(StopIteration):
        next(reader)
    assert reader.skipped == 1


class Parts(io.BytesIO):
    """A stream of byte strings; a number stands for so many zeros, an error is raised where it is reached."""

    def __init__(self, parts: Sequence[bytes | int | Exception] | Iterator[bytes]) -> None:
        super().__init__()
        self._parts = iter(parts)
        self._zeros = 0
        self._rest = b""

    def read(self, size: int | None = -1, /) -> bytes:
        size = -1 if size is None else size
        while not self._rest and not self._zeros:
            part = next(self._parts, None)
            if part is None:
                return b""
            if isinstance(part, Exception):
                raise part
            if isinstance(part, int):
                self._zeros = part
            else:
                self._rest = part
        if self._zeros:
            count = min(size, self._zeros)
            self._zeros -= count
            return bytes(count)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
