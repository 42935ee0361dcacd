"""The tags of RAM++ by number: what number a tag has, and from which score on it is given.

The released model knows a tag by its line in `ram_tag_list.txt`, from 0, and its threshold by the same line of
`ram_tag_list_threshold.txt`. Both files come with the model and are not part of this repository. The numbers decide
the order of the tags in a prompt; the shared vocabulary (`difficmh/vocabulary.py`) is sorted by name, so a capsule
holds the numbers in a file of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from difficmh.capsule import TAG_NUMBERS, VOCABULARY
from difficmh.errors import CapsuleError
from difficmh.vocabulary import PRIOR_ONE, Tag, Vocabulary

FORMAT = 1
EXPECTED_TAGS = 8.0
"""Tags of a picture that the paper reports (arXiv 2511.22549: about 100 bits at 13 bits each)."""


@dataclass(frozen=True)
class TagList:
    """Names and thresholds, the index being the tag's number.

    A tag is given where its score, in [0, 1], is *above* the threshold; so 1 stands for a tag that is never given.
    Raises CapsuleError for names that repeat, are empty or would break a prompt, and for thresholds outside (0, 1].
    """

    names: tuple[str, ...]
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.thresholds):
            raise CapsuleError(f"{len(self.names)} tags came with {len(self.thresholds)} thresholds")
        if len(self.numbers) != len(self.names):
            raise CapsuleError("a tag occurs twice in the tag list")
        for number, (name, threshold) in enumerate(zip(self.names, self.thresholds, strict=True)):
            if name != name.strip() or not name or "," in name:
                raise CapsuleError(f"tag {number} has the unusable name {name!r}")
            if not 0 < threshold <= 1 or not math.isfinite(threshold):
                raise CapsuleError(f"tag {number}, {name!r}, has the threshold {threshold}")

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each name."""
        return {name: number for number, name in enumerate(self.names)}

    def by_number(self, names: Iterable[str]) -> tuple[str, ...]:
        """Distinct names in order of their numbers, as a prompt lists them. Raises ValueError for unknown ones."""
        wanted = set(names)
        if unknown := sorted(wanted - self.numbers.keys()):
            raise ValueError(f"not in the tag list of this model: {', '.join(unknown)}")
        return tuple(sorted(wanted, key=self.numbers.__getitem__))

    def vocabulary(self, expected_tags: float = EXPECTED_TAGS) -> Vocabulary:
        """The same tags for the tag coder, sorted by name, under a flat prior of so many tags a picture.

        The released files say nothing of frequencies. Tags that are never given get the smallest probability.
        """
        possible = sum(threshold < 1 for threshold in self.thresholds)
        flat = min(max(round(PRIOR_ONE * expected_tags / max(possible, 1)), 1), PRIOR_ONE - 1)
        tags = zip(self.names, self.thresholds, strict=True)
        return Vocabulary(tuple(Tag(n, flat if t < 1 else 1, t) for n, t in sorted(tags)))

    @classmethod
    def read(cls, names: Path, thresholds: Path) -> TagList:
        """From the two text files of the released model, one entry a line. Raises CapsuleError."""
        lines = _lines(thresholds)
        try:
            values = tuple(float(line) for line in lines)
        except ValueError as error:
            raise CapsuleError(f"{thresholds.name} is no list of thresholds: {error}") from error
        return cls(_lines(names), values)

    def save_numbers(self, path: Path) -> None:
        """Writes the names in order of their numbers, one a line."""
        lines = ",\n".join(json.dumps(name, ensure_ascii=False) for name in self.names)
        path.write_text(f'{{"format": {FORMAT}, "names": [\n{lines}\n]}}\n', encoding="utf-8")

    @classmethod
    def load(cls, capsule: Path) -> TagList:
        """From a capsule: numbers from `tag_numbers.json`, thresholds from `tags.json`. Raises CapsuleError."""
        vocabulary = Vocabulary.load(capsule / VOCABULARY)
        try:
            content = json.loads((capsule / TAG_NUMBERS).read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise CapsuleError(f"{TAG_NUMBERS} has format {content['format']}, this version reads {FORMAT}")
            names = tuple(str(name) for name in content["names"])
        except CapsuleError:
            raise
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise CapsuleError(f"{TAG_NUMBERS} is no list of tags: {error}") from error
        if sorted(names) != list(vocabulary.names):
            raise CapsuleError(f"{TAG_NUMBERS} and {VOCABULARY} name different tags")
        thresholds = {tag.name: tag.threshold for tag in vocabulary.tags}
        return cls(names, tuple(thresholds[name] for name in names))


def _lines(path: Path) -> tuple[str, ...]:
    """Lines without their ends, whichever these are; the last may lack one. Raises CapsuleError."""
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise CapsuleError(f"{path.name} cannot be read: {error}") from error
