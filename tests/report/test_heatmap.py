"""The heat map of filter norms."""

import pytest
import torch

from fxprune import analyze
from fxprune.errors import InputError, MissingExtraError
from fxprune.models import resnet20
from fxprune.report.heatmap import heatmap
from fxprune.training import DWGL


@pytest.fixture(scope="module")
def votes():
    torch.manual_seed(0)
    model = resnet20()
    dwgl = DWGL(analyze(model, torch.zeros(1, 3, 32, 32)), 1.0, direction=(0.0, 8.0))
    before = dwgl.votes(model)
    dwgl.proximal_(model, 0.1)
    return {"before": before, "after": dwgl.votes(model)}


def test_a_png_with_a_clean_edge(votes, tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    heatmap(votes, tmp_path / "both.png")
    heatmap(votes["after"], tmp_path / "one.png", groups=["conv1"])
    both, one = imread(tmp_path / "both.png"), imread(tmp_path / "one.png")
    assert both.shape[1] > one.shape[1] and both.shape[0] > one.shape[0]
    assert len({tuple(p) for p in (one[::4, ::4].reshape(-1, one.shape[2])[:, :3] * 8).astype(int)}) > 4


def test_bad_input(votes, tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match="unknown group 'conv2'"):
        heatmap(votes["after"], tmp_path / "x.png", groups=["conv2"])
    with pytest.raises(InputError, match="at least one group"):
        heatmap(votes["after"], tmp_path / "x.png", groups=[])
    with pytest.raises(InputError, match=r"must be what dwgl.votes"):
        heatmap({"a": 1}, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib(votes, tmp_path, no_matplotlib):
    with pytest.raises(MissingExtraError, match=r'pip install "fxprune\[plots\]"'):
        heatmap(votes["after"], tmp_path / "x.png")
