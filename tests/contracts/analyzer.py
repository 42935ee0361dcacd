"""What every analyzer keeps, whatever it answers. A test class inherits the suite and gives the fixture `analyzer`."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import pytest
import torch
from torch import Tensor

from pipeline.analyze import result_schema
from pipeline.protocols import Analyzer


def pictures() -> list[Tensor]:
    """`(3, H, W)` float in [0, 1] of several sizes: noise, a flat one, a single pixel, a long strip."""
    noise = torch.Generator().manual_seed(7)
    sizes = [(64, 48), (33, 90), (1, 1), (4, 300)]
    return [torch.rand(3, *size, generator=noise) for size in sizes] + [torch.full((3, 40, 40), 0.25)]


class AnalyzerContract:
    """Inherit, and override the fixture `analyzer`."""

    @pytest.fixture
    def analyzer(self) -> Analyzer:
        raise NotImplementedError

    def test_one_row_of_the_declared_type_per_image(self, analyzer: Analyzer) -> None:
        rows = analyzer(pictures())
        assert len(rows) == len(pictures())
        assert all(type(row) is analyzer.row_type for row in rows)

    def test_no_images_no_rows(self, analyzer: Analyzer) -> None:
        assert analyzer([]) == []

    def test_row_type_is_a_dataclass_that_a_table_can_hold(self, analyzer: Analyzer) -> None:
        assert dataclasses.is_dataclass(analyzer.row_type)
        names = list(get_type_hints(analyzer.row_type))
        assert result_schema(analyzer.row_type).names == ["key", "shard", *names]

    def test_name_says_which_it_is(self, analyzer: Analyzer) -> None:
        assert isinstance(analyzer.name, str)
        assert analyzer.name

    def test_same_answer_twice_and_beside_other_images(self, analyzer: Analyzer) -> None:
        together = analyzer(pictures())
        alone = [analyzer([picture])[0] for picture in pictures()]
        for one, other in zip(together, alone, strict=True):
            assert _flat(one) == pytest.approx(_flat(other), rel=1e-3, abs=1e-5)

    def test_images_are_left_as_they_were(self, analyzer: Analyzer) -> None:
        images = pictures()
        analyzer(images)
        assert all(torch.equal(image, fresh) for image, fresh in zip(images, pictures(), strict=True))


def _flat(row: Any) -> list[float]:
    """The row's numbers, for comparison up to rounding."""
    numbers: list[float] = []
    for value in dataclasses.asdict(row).values():
        values = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
        numbers += [float(each) for each in values if not isinstance(each, str)]
    return numbers
