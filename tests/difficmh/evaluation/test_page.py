"""The page as text: what is escaped, in which order cases come, and that nothing is loaded from elsewhere."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difficmh.evaluation.cases import worst_cases
from difficmh.evaluation.fidelity import MS_SSIM, PSNR
from difficmh.evaluation.measure import Measurement, Plan
from difficmh.evaluation.output import Findings, write_report
from difficmh.evaluation.page import render_page
from difficmh.evaluation.summary import Request, summarise
from tests.difficmh.evaluation.pictures import synthetic


def webp(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(file, "WEBP")
    return file.getvalue()


def with_crops(measurements: list[Measurement]) -> list[Measurement]:
    return [replace(one, crop=webp(50), original_crop=webp(90)) for one in measurements]


def named(measurements: list[Measurement], names: dict[str, str]) -> list[Measurement]:
    return [replace(one, image=names[one.image]) for one in measurements]


@pytest.fixture
def both() -> list[Measurement]:
    """`lite` saves a quarter of the bits, but is 3 dB worse in picture b."""
    lite = [
        replace(one, evidence=one.evidence | {"ms_ssim_db": one.evidence["ms_ssim_db"] - 3 * (one.image == "b")})
        for one in synthetic("lite", 0.75)
    ]
    return with_crops(lite + synthetic("webp", 1.0))


def test_the_worst_case_comes_first(both: list[Measurement]) -> None:
    first, second = worst_cases(both, rate=0.15)
    assert (first.image, second.image) == ("b", "a")
    assert (first.deficit or 0) > 2
    assert (second.deficit or 0) < 0
    assert [one.codec for one in first.shown] == ["lite", "webp"]
    assert [round(one.bits_per_pixel, 4) for one in first.shown] == [0.1125, 0.15]
    assert len(worst_cases(both, rate=0.15, most=1)) == 1


def test_cases_of_one_codec_and_out_of_reach(both: list[Measurement]) -> None:
    alone = [one for one in both if one.codec == "webp"]
    assert [case.image for case in worst_cases(alone, rate=0.3)] == ["b", "a"]
    assert [case.deficit for case in worst_cases(both, rate=5.0)] == [None, None]
    assert worst_cases([replace(one, crop=None) for one in both], rate=0.15) == []


def test_pictures_that_no_other_codec_codes_at_the_rate_are_not_compared(both: list[Measurement]) -> None:
    """They come last, and the page does not put a score in place of a difference."""
    cut = [one for one in both if (one.codec, one.image) != ("webp", "b") or one.bits_per_pixel > 0.15]
    assert [(case.image, case.deficit is None) for case in worst_cases(cut, rate=0.15)] == [("a", False), ("b", True)]
    metrics = [PSNR, MS_SSIM]
    summary = summarise(cut, metrics, ["webp"], Request(resamples=5))
    page = render_page(summary, cut, Plan(("difficmh:lite", "webp"), crop_rate=0.15))
    assert page.count("Not compared: the first codec, or every other, does not reach the rate.") == 1


def test_one_is_no_plural_and_a_dash_has_no_unit(both: list[Measurement]) -> None:
    alone = [one for one in both if (one.codec, one.image) == ("webp", "a")]
    page = render_page(summarise(alone, [PSNR], [], Request(resamples=5)), alone, Plan(("webp",)))
    assert "<title>Evaluation of 1 codec on 1 picture</title>" in page
    assert "<p>1 picture through webp." in page
    request = Request(resamples=5, bd_range=(2.0, 3.0))
    page = render_page(summarise(both, [PSNR], ["webp"], request), both, Plan(("difficmh:lite", "webp")))
    assert "codecs on 2 pictures" in page
    assert "lite –</p>" in page


def test_names_are_escaped_and_the_page_needs_nothing_else(tmp_path: Path, both: list[Measurement]) -> None:
    names = {"a": "<script>alert(1)</script>.jpg", "b": 'street "&" b.jpg'}
    plan = Plan(("difficmh:<b>lite</b>", "webp"), crop_rate=0.15)
    text = write_report(tmp_path, Findings(plan, named(both, names), [PSNR, MS_SSIM]), Request(resamples=20))
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.jpg" in page
    assert "difficmh:&lt;b&gt;lite" in page
    assert page.index("street &#34;&amp;&#34; b.jpg") < page.index("&lt;script&gt;")
    assert set(re.findall(r'(?:src|href)="([^;"]*)', page)) == {"data:image/png", "data:image/webp"}
    assert page.count('alt="original"') == 2
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "evaluation.json").is_file()
    assert "BD-rate against webp" in text
