"""The picture for documents shows what its captions say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.sheet import GAP, caption_height
from demo.strip import CAPTION, CELL, write_strip
from tests.demo.test_page import picture


def test_each_photograph_has_a_row_of_three(tmp_path: Path) -> None:
    levels = {name: np.full((90, 130, 3), level, np.uint8) for name, level in (("preview", 120), ("full", 220))}
    shown = replace(picture("coffee", size=(90, 130), level=20), **levels)
    write_strip(tmp_path / "strip.jpg", [shown, picture("astronaut")])
    sheet = np.asarray(Image.open(tmp_path / "strip.jpg"))
    assert sheet.shape == (CELL[1] + caption_height(CAPTION), 3 * CELL[0] + 2 * GAP, 3)
    centres = [int(sheet[CELL[1] // 2, column * (CELL[0] + GAP) + CELL[0] // 2].mean()) for column in range(3)]
    assert centres == pytest.approx([20, 120, 220], abs=3)


def test_nothing_to_show_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="chelsea"):
        write_strip(tmp_path / "strip.jpg", [picture("astronaut")])
