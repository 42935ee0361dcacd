import json
import math
from pathlib import Path

import pytest

from difficmh.capsule import TAG_NUMBERS
from difficmh.errors import CapsuleError
from difficmh.range_coder import SymbolDecoder, SymbolEncoder
from difficmh.tag_coder import decode_tags, encode_tags
from difficmh.taggers.ram_tags import TagList
from difficmh.vocabulary import Vocabulary, tag_prior
from tests.difficmh.taggers.small_ram import TAGS

OFFICIAL_BITS = 13
EXAMPLE = (1, 17, 1034, 2999, 3640, 4584)
"""Numbers of the tags in the specification's example stream."""


def full_list() -> TagList:
    return TagList(tuple(f"tag {number:04}" for number in range(4585)), (0.65,) * 4500 + (1.0,) * 84 + (0.65,))


@pytest.mark.parametrize(("end", "last"), [("\n", ""), ("\r\n", ""), ("\n", "\n")])
def test_released_files_are_read_by_line(tmp_path: Path, end: str, last: str) -> None:
    (tmp_path / "names.txt").write_bytes((end.join(TAGS.names) + last).encode())
    (tmp_path / "thresholds.txt").write_bytes((end.join(map(str, TAGS.thresholds)) + last).encode())
    assert TagList.read(tmp_path / "names.txt", tmp_path / "thresholds.txt") == TAGS


def test_numbers_give_the_order_of_a_prompt() -> None:
    assert TAGS.by_number(["bee", "Ant", "zebra", "bee"]) == ("zebra", "Ant", "bee")
    assert TAGS.by_number([]) == ()
    with pytest.raises(ValueError, match="not in the tag list of this model: unicorn"):
        TAGS.by_number(["unicorn"])


def test_a_capsule_keeps_names_numbers_and_thresholds(tmp_path: Path) -> None:
    TAGS.vocabulary().save(tmp_path / "tags.json")
    TAGS.save_numbers(tmp_path / TAG_NUMBERS)
    assert TagList.load(tmp_path) == TAGS
    assert Vocabulary.load(tmp_path / "tags.json").names == ("Ant", "bee", "cow", "moth", "zebra")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no list of tags"),
        ("[", "no list of tags"),
        ("{}", "no list of tags"),
        ('{"format": 2, "names": []}', "format 2"),
        (json.dumps({"format": 1, "names": TAGS.names[1:]}), "different tags"),
    ],
)
def test_damaged_numbers_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    TAGS.vocabulary().save(tmp_path / "tags.json")
    if content is not None:
        (tmp_path / TAG_NUMBERS).write_text(content)
    with pytest.raises(CapsuleError, match=message):
        TagList.load(tmp_path)


@pytest.mark.parametrize(
    ("names", "thresholds"),
    [
        (("a", "b"), (0.5,)),
        (("a", "a"), (0.5, 0.5)),
        (("",), (0.5,)),
        (("a, b",), (0.5,)),
        ((" a",), (0.5,)),
        (("a",), (0.0,)),
        (("a",), (1.5,)),
        (("a",), (math.nan,)),
    ],
)
def test_what_is_no_tag_list_is_refused(names: tuple[str, ...], thresholds: tuple[float, ...]) -> None:
    with pytest.raises(CapsuleError):
        TagList(names, thresholds)


def test_files_that_are_no_lists_are_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a")
    (tmp_path / "thresholds.txt").write_text("high")
    with pytest.raises(CapsuleError, match=r"thresholds\.txt is no list"):
        TagList.read(tmp_path / "names.txt", tmp_path / "thresholds.txt")
    with pytest.raises(CapsuleError, match="missing cannot be read"):
        TagList.read(tmp_path / "names.txt", tmp_path / "missing")


def test_the_tag_coder_takes_all_4585_tags_for_fewer_bits_than_the_official_code() -> None:
    tags = full_list()
    prior = tag_prior(tags.vocabulary())
    names = [tags.names[number] for number in EXAMPLE]
    encoder = SymbolEncoder()
    encode_tags(names, prior, encoder)
    stream = encoder.finish()
    decoded = decode_tags(SymbolDecoder(stream), prior)
    assert tags.by_number(decoded) == tuple(names)
    present = set(names)
    chances = {name: int(p) / 65536 for name, p in zip(prior.names, prior.probabilities, strict=True)}
    bits = -sum(math.log2(p if name in present else 1 - p) for name, p in chances.items())
    assert bits < OFFICIAL_BITS * len(names) - 8
    assert 8 * len(stream) <= bits + 64


def test_a_tag_that_is_never_given_can_still_be_coded() -> None:
    tags = full_list()
    prior = tag_prior(tags.vocabulary())
    assert prior.probabilities.min() == 1
    encoder = SymbolEncoder()
    encode_tags(["tag 4510"], prior, encoder)
    assert decode_tags(SymbolDecoder(encoder.finish()), prior) == ("tag 4510",)
