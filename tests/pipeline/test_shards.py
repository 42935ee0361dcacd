"""Shards to samples: the WebDataset rules, the shapes found in the wild, damage, and memory."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import grouping, shards
from pipeline.records import Failure, Sample
from pipeline.shards import ShardReader, read_shard
from tests.corpora import (
    Member,
    image_bytes,
    jpeg,
    odd_shards,
    picture,
    shard_bytes,
    shard_members,
    special_member,
    tar_bytes,
    truncated,
)

URL = "s3://bucket/shard.tar"
A, B, C = jpeg(1), jpeg(2), jpeg(3)


def read(data: bytes) -> tuple[list[Sample], list[Failure], int]:
    """Samples, failures and the number of samples without image."""
    reader = read_shard(io.BytesIO(data), URL)
    records = list(reader)
    samples = [record for record in records if isinstance(record, Sample)]
    failures = [record for record in records if isinstance(record, Failure)]
    assert all(record.shard == URL for record in records)
    return samples, failures, reader.skipped


def read_members(*members: Member | tarfile.TarInfo) -> tuple[list[Sample], list[Failure], int]:
    return read(tar_bytes(members))


def keys(*members: Member) -> list[str]:
    samples, failures, _ = read_members(*members)
    assert failures == []
    return [sample.key for sample in samples]


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


class TestKeys:
    def test_key_ends_at_the_first_dot_of_the_base_name(self) -> None:
        assert keys(("run.v1/cam.0/000.jpg", A), ("run.v1/cam.1/000.jpg", B)) == [
            "run.v1/cam.0/000",
            "run.v1/cam.1/000",
        ]
        assert keys(("000.front.jpg", A)) == ["000"]

    def test_paths_are_cleaned(self) -> None:
        assert keys(("./a.jpg", A), ("/abs/b.jpg", B), ("../../etc/c.jpg", C)) == ["a", "abs/b", "etc/c"]

    def test_several_images_are_told_apart_by_their_prefix(self) -> None:
        samples, _, _ = read_members(("a.left.jpg", A), ("a.right.jpg", B), ("a.json", b"1"), ("a.left.json", b"2"))
        assert [(sample.key, sample.image_name, sample.metadata) for sample in samples] == [
            ("a.left", "a.left.jpg", {"json": 1, "left.json": 2}),
            ("a.right", "a.right.jpg", {"json": 1}),
        ]

    def test_main_image_keeps_the_plain_key(self) -> None:
        mask = image_bytes(picture(9), "PNG")
        assert keys(("a.jpg", A), ("a.seg.png", mask), ("a.png", mask)) == ["a", "a.seg", "a.png"]

    def test_metadata_with_a_prefix_of_no_image_goes_to_all(self) -> None:
        samples, _, _ = read_members(("a.jpg", A), ("a.png", B), ("a.meta.json", b"{}"))
        assert [sample.metadata for sample in samples] == [{"meta.json": {}}, {"meta.json": {}}]

    def test_image_twice_under_one_name_is_kept_twice(self) -> None:
        samples, failures, _ = read_members(("a.jpg", A), ("a.jpg", B))
        assert [sample.image for sample in samples] == [A, B]
        assert failures == []


class TestWhatIsAnImage:
    def test_content_counts_more_than_the_extension(self) -> None:
        png = image_bytes(picture(1), "PNG")
        samples, _, _ = read_members(("a.txt", A), ("b", png), ("c.JPEG", B), ("d.bin", C))
        assert [sample.image for sample in samples] == [A, png, B, C]

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF"])
    def test_every_format_without_extension(self, format: str) -> None:
        assert keys(("a", image_bytes(picture(1), format))) == ["a"]

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

    def test_link_is_a_sample_without_image(self) -> None:
        assert read_members(special_member("b.jpg", tarfile.LNKTYPE, "a.jpg"))[1:] == ([], 1)


class TestMetadata:
    def metadata(self, name: str, content: bytes) -> object:
        samples, _, _ = read_members(("a.jpg", A), (name, content))
        return samples[0].metadata

    def test_values(self) -> None:
        assert self.metadata("a.txt", "größer".encode()) == {"txt": "größer"}
        assert self.metadata("a.npy", b"\x93NUMPY\xff") == {"npy": {"base64": "k05VTVBZ/w=="}}
        assert self.metadata("a.meta.json", b"[1, null]") == {"meta.json": [1, None]}

    @pytest.mark.parametrize("text", ["{bad", '"\\ud800"', "[" * 100_000, "1" * 5000, ""])
    def test_json_that_cannot_be_used_stays_text(self, text: str) -> None:
        assert self.metadata("a.json", text.encode()) == {"json": text}

    def test_large_neighbour_stays_in_the_shard(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shards, "MAX_METADATA_BYTES", 100)
        assert self.metadata("a.pcd", bytes(101)) == {"pcd": {"omitted_bytes": 101}}

    def test_same_extension_twice(self) -> None:
        samples, failures, _ = read_members(("a.jpg", A), ("a.json", b"1"), ("a.json", b"2"))
        assert samples[0].metadata == {"json": 1}
        assert [(failure.key, failure.stage, failure.data) for failure in failures] == [("a", "group", b"2")]

    @given(st.binary(max_size=200))
    def test_any_json_bytes_can_be_written_as_json(self, content: bytes) -> None:
        json.dumps(self.metadata("a.json", content), ensure_ascii=False).encode()


class TestOrder:
    others: Sequence[Member] = tuple((f"o{index:03d}.jpg", A) for index in range(grouping.LOOK_BACK + 5))

    def test_metadata_a_little_late_is_attached(self) -> None:
        samples, failures, _ = read_members(("a.jpg", B), *self.others[:20], ("a.json", b"1"))
        assert samples[0].metadata == {"json": 1}
        assert failures == []

    def test_metadata_before_its_image_is_attached_at_any_distance(self) -> None:
        samples, failures, _ = read_members(("a.json", b"1"), *self.others, ("a.jpg", B))
        assert [sample.metadata for sample in samples if sample.key == "a"] == [{"json": 1}]
        assert failures == []

    def test_metadata_too_late_is_set_aside_with_its_bytes(self) -> None:
        samples, failures, skipped = read_members(("a.jpg", B), *self.others, ("a.json", b"1"))
        assert samples[0].metadata == {}
        assert [(failure.key, failure.stage, failure.data) for failure in failures] == [("a", "group", b"1")]
        assert "sort the shard" in failures[0].error
        assert skipped == 0

    def test_all_metadata_behind_all_images(self) -> None:
        members = sorted(shard_members(60), key=lambda member: not member[0].endswith(".jpg"))
        samples, failures, _ = read_members(*members)
        attached = sum(len(sample.metadata) for sample in samples)
        assert len(samples) == 60
        assert attached + len(failures) == 120  # nothing lost
        assert {failure.stage for failure in failures} == {"group"}

    def test_late_second_image_gets_its_own_key(self) -> None:
        samples, _, _ = read_members(("a.left.jpg", A), *self.others, ("a.right.jpg", B), ("a.right.json", b"1"))
        assert (samples[0].key, samples[-1].key, samples[-1].metadata) == ("a", "a.right", {"right.json": 1})

    def test_latecomer_is_never_attached_to_another_image(self) -> None:
        samples, failures, _ = read_members(("a.1.jpg", A), *self.others, ("a.1.json", b"1"), ("a.2.jpg", B))
        assert [sample.metadata for sample in samples if sample.image == B] == [{}]
        assert [failure.data for failure in failures] == [b"1"]

    def test_metadata_crowded_out_before_its_image_comes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(grouping, "WAITING_METADATA_BYTES", 1000)
        texts = [(f"t{index}.txt", bytes(400)) for index in range(4)]
        samples, failures, skipped = read_members(*texts, ("t0.jpg", A), ("t3.jpg", B))
        assert [sample.key for sample in samples] == ["t0", "t3"]
        assert samples[1].metadata == {"txt": "\0" * 400}
        assert [(failure.key, failure.stage) for failure in failures] == [("t0", "group")]
        assert skipped == 2

    def test_images_wait_for_fewer_others_if_they_are_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(grouping, "LOOK_BACK_BYTES", 3 * len(A))
        _, failures, _ = read_members(("a.jpg", A), *self.others[:4], ("a.json", b"1"))
        assert len(failures) == 1

    @given(st.permutations(shard_members(4)))
    def test_any_order_of_a_small_shard_gives_the_same_samples(self, members: list[Member]) -> None:
        samples, failures, skipped = read(tar_bytes(members))
        expected, _, _ = read(shard_bytes(4))
        assert sorted(samples, key=lambda sample: sample.key) == expected
        assert (failures, skipped) == ([], 0)


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


class Parts(io.RawIOBase):
    """A stream of byte strings; a number stands for so many zeros, an error is raised where it is reached."""

    def __init__(self, parts: Sequence[bytes | int | Exception] | Iterator[bytes]) -> None:
        super().__init__()
        self._parts = iter(parts)
        self._zeros = 0
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
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
