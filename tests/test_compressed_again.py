"""Records: what a result knows of itself, and of the first original where it was compressed more than once."""

import pytest
import torch
from torch import nn

import fxprune


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 12, 3), nn.ReLU(),
                         nn.Conv2d(12, 4, 1)), torch.randn(2, 3, 8, 8)


def test_a_result_that_is_compressed_again_knows_the_first_original():
    model, x = net()
    small = fxprune.compress(model, x, macs=0.7)
    assert fxprune.record(small).overall is None
    with torch.no_grad():  # fine-tuned in between
        for p in small.parameters():
            p.add_(0.1 * torch.randn_like(p))
    smaller = fxprune.compress(small, x, macs=0.7)
    smallest = fxprune.compress(smaller, x, channels=0.5)
    first, last, overall = (fxprune.record(m) for m in (small, smallest, smallest))
    overall = last.overall
    assert overall.steps == 3 and overall.before == first.before and overall.after == last.after
    assert overall.before.params == sum(p.numel() for p in model.parameters())
    assert overall.after.params == sum(p.numel() for p in smallest.parameters())
    once = fxprune.apply(model, overall.plan)
    shapes = [{name: t.shape for name, t in m.state_dict().items()} for m in (once, smallest)]
    assert shapes[0] == shapes[1] and fxprune.verify(model, once, overall.plan).ok
    assert f"{overall.after.macs / overall.before.macs:.1%} of the MACs" in str(overall)
    assert "of the first original after 3 compressions (one plan does the same)" in last.report()
    assert len(overall.plan.options["steps"]) == 3


@pytest.mark.parametrize("forms", [("module", "module"), ("module", "graph")])
def test_a_result_of_the_same_class_is_compressed_again(forms, tmp_path):
    model, x = net()
    first, second = ({"form": form} for form in forms)
    small = fxprune.compress(fxprune.compress(model, x, macs=0.7, **first), x, macs=0.5, of="original", **second)
    overall = fxprune.record(small).overall
    assert overall.steps == 2 and overall.before.macs == fxprune.record(fxprune.apply(model, overall.plan)).before.macs
    once = fxprune.apply(model, overall.plan, **second)
    assert type(once).__name__ == type(small).__name__ and torch.equal(once(x), small(x))
    fxprune.save(small, tmp_path / "pruned")
    assert torch.equal(fxprune.load(tmp_path / "pruned", model=net()[0])(x), small(x))


def test_apply_keeps_it_as_compress_does():
    model, x = net()
    small = fxprune.compress(model, x, channels=0.5)
    plan = fxprune.plan(fxprune.analyze(small, x), small, widths={"0": 4})
    overall = fxprune.record(fxprune.apply(small, plan)).overall
    assert overall.steps == 2 and overall.plan.widths == {"0": 4, "3": 6}


def test_the_folder_of_a_later_result_is_loaded_onto_the_first_original(tmp_path):
    model, x = net()
    smaller = fxprune.compress(fxprune.compress(model, x, macs=0.7), x, macs=0.7)
    fxprune.save(smaller, tmp_path / "pruned")
    fresh = net()[0]
    loaded = fxprune.load(tmp_path / "pruned", model=fresh)
    assert torch.equal(loaded(x), smaller(x))
    assert fxprune.record(loaded).before == fxprune.record(smaller).overall.before


def test_where_no_one_plan_does_the_same_it_says_why(tmp_path):
    model, x = net()
    small = fxprune.compress(model, x, macs=0.7)

    def fit(model, penalty):
        pass

    trained = fxprune.compress(small, x, channels=0.5, train=fit)
    overall = fxprune.record(trained).overall
    assert overall.plan is None and "channels were ordered in between" in str(overall)
    again = fxprune.record(fxprune.compress(trained, x, channels=0.5)).overall
    assert again.plan is None and again.why == overall.why and again.steps == 3
    small.get_submodule("5").weight = nn.Parameter(torch.randn(2, small.get_submodule("5").weight.shape[1], 1, 1))
    small.get_submodule("5").bias = nn.Parameter(torch.randn(2))
    changed = fxprune.record(fxprune.compress(small, x, channels=0.5)).overall
    assert changed.plan is None and "the model was changed in between" in changed.why


def test_an_ordered_copy_is_no_result():
    model, x = net()
    small = fxprune.compress(model, x, channels=0.5)
    ordered, _ = fxprune.order(small, fxprune.analyze(small, x))
    with pytest.raises(fxprune.InputError, match="without a record"):
        fxprune.record(ordered)
    assert fxprune.record(small).plan.widths == {"0": 8, "3": 6}


def test_folds_in_any_step_are_folds_of_the_whole(tmp_path):
    model, x = net()
    small = fxprune.compress(model, x, channels=0.5, fold_constants=True)
    smaller = fxprune.compress(small, x, channels=0.5)
    assert fxprune.record(smaller).overall.folded and not fxprune.record(smaller).folds
    fxprune.save(smaller, tmp_path / "pruned")
    assert torch.equal(fxprune.load(tmp_path / "pruned", model=net()[0])(x), smaller(x))
