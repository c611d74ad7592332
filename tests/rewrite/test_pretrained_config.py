"""The search for a configuration ends, found or not."""

import pytest
from torch import nn

from fxprune.capture.sizes import Attribute
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


class Heads(nn.Module):
    """Its forward reads how wide a head is, and takes as many heads as that makes."""

    def __init__(self, width=8, heads=4):
        super().__init__()
        self.heads, self.size, self.into = heads, width // heads, nn.Linear(3, width)


class Said(Package):
    """Builds what is asked for, and notes what is said in the end."""

    def build(self, model, changes):
        return Heads(**{**self.said, **{path[0]: value for path, value in changes.items()}})

    def state(self, small, changes):
        self.stated = {path[0]: value for path, value in changes.items()}


def test_a_number_that_a_run_reads_is_not_what_another_configuration_makes_of_it(monkeypatch):
    """Width 4 alone has the same shapes: four heads of one channel."""
    package, model, small = Said(width=8, heads=4), Heads(), Heads(4, 2)
    small.heads = 4  # nothing reads it, so that it stayed
    monkeypatch.setattr(pretrained_config, "package_of", lambda model: package)
    pretrained_config.settle_config(model, small, ["into.weight", "into.bias"], [Attribute("", ("size",), 2)])
    assert package.stated == {"width": 4, "heads": 2} and (small.heads, small.size) == (2, 2)
