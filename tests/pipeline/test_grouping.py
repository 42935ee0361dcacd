"""Files under one key to samples: keys, metadata, and files that come in any order."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import grouping, shards
from tests.corpora import Member, image_bytes, picture, shard_bytes, shard_members, tar_bytes
from tests.pipeline.reading_shards import A, B, C, keys, read, read_members


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

    def test_metadata_of_a_long_extension_belongs_to_the_image_that_its_beginning_names(self) -> None:
        samples, failures, _ = read_members(("a.x.jpg", A), ("a.y.jpg", B), ("a.x.p.q.r.s.json", b"1"))
        assert [(sample.key, sample.metadata) for sample in samples] == [("a.x", {"x.p.q.r.s.json": 1}), ("a.y", {})]
        assert failures == []

    def test_main_image_keeps_the_plain_key(self) -> None:
        mask = image_bytes(picture(9), "PNG")
        assert keys(("a.jpg", A), ("a.seg.png", mask), ("a.png", mask)) == ["a", "a.seg", "a.png"]

    def test_metadata_with_a_prefix_of_no_image_goes_to_all(self) -> None:
        samples, _, _ = read_members(("a.jpg", A), ("a.png", B), ("a.meta.json", b"{}"))
        assert [sample.metadata for sample in samples] == [{"meta.json": {}}, {"meta.json": {}}]

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_raw_file_leaves_the_key_to_the_picture_beside_it(self, order: int) -> None:
        assert keys(*[("a.cr3", B), ("a.jpg", A)][::order]) == ["a.cr3", "a"][::order]
        assert keys(("a.cr3", B)) == ["a"]

    def test_metadata_of_a_prefix_follows_its_image_first(self) -> None:
        """Of several files that name a time or a place, the first counts (`metadata.py`)."""
        members = (("a.json", b"1"), ("a.meta.json", b"2"), ("a.7.meta.json", b"3"), ("a.7.json", b"4"))
        samples, _, _ = read_members(*members, ("a.jpg", A), ("a.7.jpg", B))
        assert [list(sample.metadata.values()) for sample in samples] == [[1, 2], [3, 4, 1, 2]]

    @pytest.mark.parametrize("lost", [[], [("a.2.jpg", b"")]])
    def test_metadata_of_a_lost_image_goes_to_no_other(self, lost: list[Member]) -> None:
        frames = [member for n in (1, 3) for member in ((f"a.{n}.jpg", A), (f"a.{n}.json", b"%d" % n))]
        samples, failures, _ = read_members(*frames, *lost, ("a.2.json", b"2"), ("a.scan.npy", b"x"))
        assert [sample.metadata for sample in samples] == [
            {"1.json": 1, "scan.npy": "x"},
            {"3.json": 3, "scan.npy": "x"},
        ]
        assert [failure.data for failure in failures if failure.stage == "group"] == [b"2"]

    @pytest.mark.parametrize("between", [0, grouping.LOOK_BACK + 5])
    def test_metadata_with_a_prefix_in_joined_tars(self, between: int) -> None:
        """It goes to the picture of its own round, unless it may be that of a picture of its name."""
        others = [(f"o{index:03d}.jpg", A) for index in range(between)]
        again = [("a.jpg", B), ("a.meta.json", b"2")]
        samples, failures, _ = read_members(("a.jpg", A), ("a.meta.json", b"1"), *others, *again)
        pairs = [(sample.image, sample.metadata) for sample in samples if sample.key == "a"]
        assert pairs == [(A, {"meta.json": 1}), (B, {"meta.json": 2})]
        assert failures == []
        samples, failures, _ = read_members(("a.jpg", A), ("a.meta.jpg", A), *others, *again)
        assert all(sample.metadata == {} for sample in samples)
        assert [failure.data for failure in failures] == [b"2"]

    def test_image_twice_under_one_name_is_kept_twice(self) -> None:
        samples, failures, _ = read_members(("a.jpg", A), ("a.jpg", B))
        assert [sample.image for sample in samples] == [A, B]
        assert failures == []


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

    def test_json_behind_a_byte_order_mark(self) -> None:
        assert self.metadata("a.json", b'\xef\xbb\xbf{"camera": "north"}') == {"json": {"camera": "north"}}

    def test_large_neighbour_stays_in_the_shard(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shards, "MAX_METADATA_BYTES", 100)
        assert self.metadata("a.pcd", bytes(101)) == {"pcd": {"omitted_bytes": 101}}

    @pytest.mark.parametrize(("first", "second"), [(b"1", bytes(101)), (bytes(101), b"1")])
    def test_of_two_before_their_image_the_first_counts(
        self, first: bytes, second: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shards, "MAX_METADATA_BYTES", 100)
        samples, failures, _ = read_members(("a.json", first), ("a.json", second), ("a.jpg", A))
        assert samples[0].metadata == {"json": 1 if first == b"1" else {"omitted_bytes": 101}}
        assert [(failure.key, failure.stage) for failure in failures] == [("a", "group")]
        assert ("stay in the shard" in failures[0].error) == (second != b"1")

    def test_same_extension_twice(self) -> None:
        samples, failures, _ = read_members(("a.jpg", A), ("a.json", b"1"), ("a.json", b"2"))
        assert samples[0].metadata == {"json": 1}
        assert [(failure.key, failure.stage, failure.data) for failure in failures] == [("a", "group", b"2")]

    def test_same_extension_again_and_too_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shards, "MAX_METADATA_BYTES", 100)
        samples, failures, _ = read_members(("a.jpg", A), ("a.json", b"1"), ("a.json", bytes(101)))
        assert samples[0].metadata == {"json": 1}
        assert [(failure.key, failure.stage, failure.data) for failure in failures] == [("a", "group", b"")]
        assert failures[0].error.endswith("; its 101 bytes stay in the shard")

    @given(st.binary(max_size=200))
    def test_any_json_bytes_can_be_written_as_json(self, content: bytes) -> None:
        json.dumps(self.metadata("a.json", content), ensure_ascii=False).encode()


class TestOrder:
    others: Sequence[Member] = tuple((f"o{index:03d}.jpg", A) for index in range(grouping.LOOK_BACK + 5))

    def test_metadata_a_little_late_is_attached(self) -> None:
        samples, failures, _ = read_members(("a.jpg", B), *self.others[:20], ("a.json", b"1"))
        assert samples[0].metadata == {"json": 1}
        assert failures == []

    @pytest.mark.parametrize(("others", "late"), [(31, False), (32, True)])
    def test_an_image_waits_as_long_as_it_is_one_of_the_last_32(self, others: int, late: bool) -> None:
        samples, failures, _ = read_members(("a.jpg", B), *self.others[:others], ("a.json", b"1"))
        assert samples[0].metadata == ({} if late else {"json": 1})
        assert len(failures) == late

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

    def test_metadata_crowded_out_more_than_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(grouping, "WAITING_METADATA_BYTES", 1000)
        texts = [(f"{name}.txt", bytes(400)) for name in ("t0", "t1", "t2", "t3", "t0.b", "t4", "t5", "t6")]
        samples, failures, skipped = read_members(*texts, ("t0.jpg", A))
        assert [sample.key for sample in samples] == ["t0"]
        assert [(failure.key, failure.stage) for failure in failures] == [("t0", "group")]
        assert skipped == 6

    def test_metadata_crowded_out_is_told_of_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(grouping, "WAITING_METADATA_BYTES", 1000)
        texts = [(f"t{index}.txt", bytes(400)) for index in range(3)]
        samples, failures, _ = read_members(*texts, ("t0.jpg", A), *self.others, ("t0.jpg", B))
        assert [sample.image for sample in samples if sample.key == "t0"] == [A, B]
        assert [(failure.key, failure.stage) for failure in failures] == [("t0", "group")]

    def test_samples_without_an_image_are_held_in_bounded_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(grouping, "WAITING_METADATA_BYTES", 100_000)
        waiting, crowded_out = grouping.Waiting(), 0
        tracemalloc.start()
        try:
            for number in range(5000):
                group = waiting.take(str(number))
                group.add_metadata("cls", b"1")
                crowded_out += len(waiting.put(group))
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert crowded_out + len(waiting.rest()) == 5000
        assert held < 100_000 + 5000 * 200, "but for the keys of those that have gone"

    def test_images_wait_for_fewer_others_if_they_are_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(grouping, "LOOK_BACK_BYTES", 3 * len(A))
        _, failures, _ = read_members(("a.jpg", A), *self.others[:4], ("a.json", b"1"))
        assert len(failures) == 1

    def test_a_large_image_still_waits_for_the_files_beside_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(grouping, "LOOK_BACK_BYTES", len(A) // 2)
        samples, failures, _ = read_members(("a.left.jpg", A), ("a.right.jpg", B), ("a.txt", b"x"), ("b.jpg", C))
        assert [(sample.key, sample.metadata) for sample in samples] == [
            ("a.left", {"txt": "x"}),
            ("a.right", {"txt": "x"}),
            ("b", {}),
        ]
        assert failures == []

    def test_a_sample_without_end_does_not_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(grouping, "LOOK_BACK_BYTES", len(A))
        monkeypatch.setattr(grouping, "SAMPLE_BYTES", 3 * len(A))
        waiting, gone = grouping.Waiting(), 0
        for number in range(20):
            group = waiting.take("a")
            group.add_image(f"{number}.jpg", grouping.ImageFile(f"a.{number}.jpg", A))
            gone += sum(len(finished.images) for finished in waiting.put(group))
            assert number + 1 - gone <= 3
        assert gone + sum(len(group.images) for group in waiting.rest()) == 20

    def test_each_of_two_samples_under_one_key_keeps_its_metadata(self) -> None:
        """As where tars whose numbers begin at nought were joined together."""
        one = [("0.jpg", A), ("0.json", b"1"), ("1.jpg", B), ("1.json", b"2")]
        two = [("0.json", b"3"), ("0.jpg", C), ("1.json", b"4"), ("1.jpg", B)]
        samples, failures, skipped = read_members(*one, *two)
        assert [(sample.key, sample.metadata["json"]) for sample in samples] == [("0", 1), ("1", 2), ("0", 3), ("1", 4)]
        assert (failures, skipped) == ([], 0)

    def test_thousands_of_images_under_one_key(self) -> None:
        """`camera.000001.jpg`: the key ends at the first dot."""
        group = grouping.Group("camera")
        for number in range(5000):
            group.add_image(f"{number}.jpg", grouping.ImageFile(f"camera.{number}.jpg", A))
            group.add_metadata(f"{number}.json", b"%d" % number)
        samples = list(group.samples("shard"))
        assert [sample.metadata for sample in samples] == [{f"{n}.json": n} for n in range(5000)]
        assert group.unclaimed() == {}

    @given(st.permutations(shard_members(4)))
    def test_any_order_of_a_small_shard_gives_the_same_samples(self, members: list[Member]) -> None:
        samples, failures, skipped = read(tar_bytes(members))
        expected, _, _ = read(shard_bytes(4))
        assert sorted(samples, key=lambda sample: sample.key) == expected
        assert (failures, skipped) == ([], 0)
