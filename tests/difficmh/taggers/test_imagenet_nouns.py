"""Nouns of ImageNet's classes."""

from __future__ import annotations

from difficmh.taggers.imagenet_nouns import CLASSES, SHOWN_BY, class_nouns, classes_of


def test_every_class_has_a_plain_noun() -> None:
    nouns = class_nouns()
    assert len(nouns) == CLASSES
    assert all(noun == noun.lower().strip() and "," not in noun for noun in nouns)


def test_a_broader_noun_covers_its_classes() -> None:
    shown = {class_nouns()[index] for index in classes_of("cat")}
    assert shown == {"tabby", "tiger cat", "persian cat", "siamese cat", "egyptian cat"}


def test_classes_that_share_a_noun_are_joined_and_unknown_nouns_have_none() -> None:
    assert classes_of("crane") == (134, 517)
    assert classes_of("license plate") == ()


def test_the_table_stays_inside_the_classes() -> None:
    for noun in SHOWN_BY:
        classes = classes_of(noun)
        assert classes == tuple(sorted(set(classes)))
        assert classes
        assert 0 <= classes[0] <= classes[-1] < CLASSES
