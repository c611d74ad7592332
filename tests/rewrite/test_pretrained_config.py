"""The search for a configuration ends, found or not."""

import pytest
from torch import nn

from fxprune.errors import UnsupportedError
from fxprune.rewrite import pretrained_config


class Package:
    """Builds what it built, whatever is asked."""

    def __init__(self, **fields):
        self.said, self.builds = fields, 0

    def name(self, model):
        return "Said"

    def fields(self, model):
        return self.said

    def build(self, model, changes):
        self.builds += 1
        return nn.Linear(3, 4)


@pytest.mark.parametrize("fields, builds", [({}, 1), ({"other": 7}, 1), ({"width": 4}, 3)])
def test_where_no_field_says_it_saving_is_refused(monkeypatch, fields, builds):
    package, small = Package(**fields), nn.Linear(3, 2)
    monkeypatch.setattr(pretrained_config, "package_of", lambda model: package)
    pretrained_config.settle_config(nn.Linear(3, 4), small, ["weight", "bias"])
    assert package.builds == builds
    with pytest.raises(UnsupportedError, match=r"none of Said says this result: weight has shape \[2, 3\] here"):
        small.save_pretrained("folder")
