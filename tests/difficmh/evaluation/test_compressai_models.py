"""Networks of compressai with weights from files; untrained ones do as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.models import FactorizedPrior, ScaleHyperprior

from difficmh.evaluation.compressai_models import load_compressai
from tests.difficmh.test_metrics import photo


def write(path: Path, network: torch.nn.Module, **wrapped: str) -> Path:
    state = {wrapped.get("prefix", "") + name: value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, path)
    return path


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize(
    ("architecture", "network"), [("bmshj2018-factorized", FactorizedPrior), ("bmshj2018-hyperprior", ScaleHyperprior)]
)
def test_there_and_back(tmp_path: Path, architecture: str, network: type) -> None:
    first = write(tmp_path / "first.pth", network(8, 12))
    second = write(tmp_path / "second.pth", network(8, 12), prefix="module.")
    contestant = load_compressai(f"{architecture}={first},{second}")
    image = photo(70, 50)
    assert tuple(contestant.qualities) == (1, 2)
    for quality in contestant.qualities:
        data = contestant.compress(image, quality)
        decoded = contestant.decompress(data)
        assert decoded.shape == image.shape
        assert decoded.dtype == np.uint8
        assert np.array_equal(decoded, contestant.decompress(data))


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weights at"):
        load_compressai(f"mbt2018={tmp_path / 'none.pth'}")
    (tmp_path / "text.pth").write_text("nothing")
    with pytest.raises(ValueError, match="holds no weights of FactorizedPrior"):
        load_compressai(f"bmshj2018-factorized={tmp_path / 'text.pth'}")
    other = write(tmp_path / "other.pth", torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="holds no weights of MeanScaleHyperprior"):
        load_compressai(f"mbt2018-mean={other}")
