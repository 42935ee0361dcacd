"""Plain nouns for ImageNet's classes: each class's own, and broader ones that many classes show."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

CLASSES = 1000

SHOWN_BY = {
    "airplane": "404 895",
    "antelope": "351-353",
    "apple": "948",
    "beach": "977-978",
    "bear": "294-297",
    "bed": "564",
    "bench": "703",
    "bicycle": "444 671 870",
    "big cat": "286-293",
    "bird": "7-24 80-100 127-146",
    "boat": "472 484 510 554 576 625 628 724 780 814 871 914",
    "book": "917 921",
    "bottle": "440 737 898 907",
    "bowl": "659 809",
    "bridge": "821 839 888",
    "building": "425 437 449 483 497 663 668 698 832",
    "bus": "654 779 874",
    "cabbage": "936",
    "camel": "354",
    "car": "407 436 468 511 609 627 656 661 734 751 817",
    "cat": "281-285",
    "cell phone": "487",
    "chair": "423 559 765",
    "clock": "409 530 892",
    "clothing": "399 400 411 445 474 568 578 608 610 614 617 638 639 652 655 689 697 735 834 841 842 869",
    "couch": "831",
    "cow": "345-346",
    "crab": "118-121 125",
    "crocodile": "49-50",
    "dog": "151-268",
    "door": "799",
    "dress": "578 601",
    "elephant": "101 385-386",
    "fence": "489 716 912",
    "fish": "0-6 389-397",
    "flower": "985-986",
    "food": "924-935 959-965",
    "fox": "277-280",
    "frog": "30-32",
    "fruit": "948-957",
    "handbag": "748",
    "hat": "439 452 515 808",
    "horse": "339",
    "hot dog": "934",
    "insect": "300-326",
    "keyboard": "508 878",
    "lake": "975",
    "lamp": "619 846",
    "lizard": "38-48",
    "monkey": "365-382",
    "motorcycle": "665 670",
    "mountain": "970 979-980",
    "mushroom": "992-997",
    "panda": "387-388",
    "person": "981-983",
    "pig": "341-343",
    "potted plant": "738",
    "rabbit": "330-332",
    "remote": "761",
    "salamander": "25-29",
    "sheep": "348-349",
    "shoes": "502 514 630 770 774",
    "sink": "896",
    "skis": "795",
    "sky": "403-405 417 437 484 540 668 682 701 780 839 871 895 900 914 970 975-980 984",
    "snake": "52-68",
    "spider": "72-77",
    "spoon": "618 910",
    "sports ball": "429 430 574 722 768 805 852 890",
    "table": "526 532 736",
    "teddy bear": "850",
    "tennis racket": "752",
    "tie": "906",
    "toilet": "861",
    "towel": "434",
    "traffic sign": "919",
    "train": "466 547 705 820 829",
    "trash can": "412",
    "tree": "425 449 575 703 912 970 975 979",
    "truck": "555 569 675 717 864 867",
    "turtle": "33-37",
    "tv": "851",
    "vegetable": "936-946",
    "whale": "147-148",
    "wild dog": "269-275",
    "window blind": "905",
    "wine glass": "572",
}
"""Broader nouns and the classes, in WordNet-id order, whose pictures show them (nearly always, for sky and tree)."""


@cache
def class_nouns() -> tuple[str, ...]:
    """The first lemma of each of the 1000 classes in lower case; a few classes share one."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    return tuple(info.index_to_description(index).split(",")[0].strip().lower() for index in range(CLASSES))


def classes_of(noun: str) -> tuple[int, ...]:
    """The classes that show a noun, sorted; none for a noun that ImageNet does not know."""
    own = (index for index, name in enumerate(class_nouns()) if name == noun)
    return tuple(sorted({*own, *_ranges(SHOWN_BY.get(noun, ""))}))


def _ranges(text: str) -> Iterable[int]:
    for part in text.split():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
