"""One HTML file about an evaluation, pictures embedded, which opens without a network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from difficmh.evaluation.cases import judging_metric, worst_cases
from difficmh.evaluation.measure import Measurement, Plan
from difficmh.evaluation.plots import curves_png
from difficmh.evaluation.report import written
from difficmh.evaluation.summary import Summary
from difficmh.unreadable import counted, left_out

SHOWN_SCORES = {"psnr": "PSNR", "ms_ssim_db": "MS-SSIM", "ssimulacra2": "SSIMULACRA 2"}


def render_page(summary: Summary, measurements: Sequence[Measurement], plan: Plan) -> str:
    """The page as HTML. All text is escaped: names of pictures and codecs may hold anything."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("difficmh.evaluation", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["interval"] = written
    environment.filters["counted"] = counted
    environment.globals["data_uri"] = data_uri
    content: dict[str, Any] = {
        "summary": summary,
        "plan": plan,
        "cases": worst_cases(measurements, plan.crop_rate),
        "left_out": left_out(summary.unreadable) if summary.unreadable else "",
        "judged_by": judging_metric(measurements).title,
        "score_names": SHOWN_SCORES,
        "plots": [(found.metric, curves_png([found])) for found in summary.metrics if any(found.figures.values())],
    }
    return environment.get_template("page.html").render(content)


def data_uri(kind: str, data: bytes) -> str:
    """Bytes of a picture as a `data:` address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
