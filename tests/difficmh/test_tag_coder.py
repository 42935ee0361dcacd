import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difficmh.errors import BitstreamError
from difficmh.range_coder import SymbolDecoder, SymbolEncoder
from difficmh.tag_coder import TagPrior, decode_tags, encode_tags

NAMES = tuple(f"tag {i}" for i in range(1200))
LIKELY = np.array([max(1, 9000 // (i + 1)) for i in range(1200)], np.uint16)
PRIOR = TagPrior(NAMES, LIKELY)


def coded(tags: list[str], prior: TagPrior = PRIOR) -> bytes:
    encoder = SymbolEncoder()
    encode_tags(tags, prior, encoder)
    return encoder.finish()


@given(st.lists(st.sampled_from(NAMES), max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_set_of_tags_comes_back_sorted(tags: list[str]) -> None:
    assert decode_tags(SymbolDecoder(coded(tags)), PRIOR) == tuple(sorted(set(tags)))


def test_all_tags_at_once() -> None:
    assert decode_tags(SymbolDecoder(coded(list(NAMES))), PRIOR) == tuple(sorted(NAMES))


def test_order_and_repetition_do_not_change_the_bytes() -> None:
    assert coded(["tag 7", "tag 3", "tag 7"]) == coded(["tag 3", "tag 7"])


def test_bytes_of_tags_never_change() -> None:
    assert coded(["tag 0", "tag 17", "tag 600", "tag 1199"]).hex() == "d0e62e7c0c0000002fb649c1"
    prior = TagPrior(("a", "b", "c", "d", "e"), np.array([1, 65532, 65533, 65534, 65535], np.uint16))
    assert coded(["a"], prior).hex() == "fdff0000004000000000000000000000"


def test_a_prior_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        PRIOR.probabilities[0] = 1


def test_common_tags_cost_few_bits() -> None:
    # 8 bytes are the coder's state, which holds the first 31 bits.
    assert len(coded(["tag 0", "tag 2", "tag 5"])) == 8
    assert len(coded(["tag 1", "tag 900", "tag 1100", "tag 1150", "tag 1199"])) <= 16


def test_symbols_follow_the_tags() -> None:
    encoder = SymbolEncoder()
    encode_tags(["tag 4"], PRIOR, encoder)
    encode_tags([], PRIOR, encoder)
    encode_tags(["tag 8"], PRIOR, encoder)
    decoder = SymbolDecoder(encoder.finish())
    assert [decode_tags(decoder, PRIOR) for _ in range(3)] == [("tag 4",), (), ("tag 8",)]
    assert decoder.checksum == encoder.checksum


def test_a_tag_outside_the_vocabulary_is_named() -> None:
    with pytest.raises(ValueError, match="vocabulary of this model: cow, unicorn"):
        coded(["tag 1", "unicorn", "cow"])


def test_an_empty_vocabulary_codes_the_empty_set() -> None:
    prior = TagPrior((), np.zeros(0, np.uint16))
    assert decode_tags(SymbolDecoder(coded([], prior)), prior) == ()


@pytest.mark.parametrize("symbol", [2, -1])
def test_a_tag_that_is_neither_present_nor_absent_is_damage(symbol: int) -> None:
    prior = TagPrior(("a", "b"), np.array([9, 9], np.uint16))
    encoder = SymbolEncoder()
    encoder.push(np.array([0, symbol]), np.array([0, 0]), prior._coding[1])
    with pytest.raises(BitstreamError, match="neither present nor absent"):
        decode_tags(SymbolDecoder(encoder.finish()), prior)


@pytest.mark.parametrize(
    ("names", "probabilities"),
    [
        (("a",), np.array([1, 2], np.uint16)),
        (("a",), np.array([0], np.uint16)),
        (("a",), np.array([65536])),
        (("a",), np.array([0.5])),
        (("a", "a"), np.array([1, 1], np.uint16)),
    ],
)
def test_what_is_no_prior_is_refused(names: tuple[str, ...], probabilities: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"tag|probabilities"):
        TagPrior(names, probabilities)


def test_extreme_probabilities_work() -> None:
    prior = TagPrior(("rare", "nearly always"), np.array([1, 65535], np.uint16))
    for tags in ((), ("rare",), ("nearly always",), ("nearly always", "rare")):
        assert decode_tags(SymbolDecoder(coded(list(tags), prior)), prior) == tags
