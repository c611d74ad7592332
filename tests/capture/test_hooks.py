"""Hooks: they run on copies alone, and are on the result as they were on the original."""

import copy
import pickle
import threading
import warnings
from functools import partial

import pytest
import reference
import torch
from torch import nn

import fxprune
from fxprune.capture.hooks import isolated, rebound

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SEEN = []


class Net(nn.Module):
    """A hook that is a method, and one that is a method of a submodule's container."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 20, 3), nn.Conv2d(20, 3, 1)
        self.seen, self.calls = None, []
        self.a.register_forward_hook(self.log)

    def log(self, module, args, output):
        self.seen = self.measured(output)
        self.calls.append(module)

    def measured(self, output):
        return tuple(output.shape)

    def forward(self, x):
        return self.head(self.b(self.a(x).relu()).relu())


class Collecting(Net):
    """Forward reads what a hook stored."""

    def log(self, module, args, output):
        self.seen = output

    def forward(self, x):
        self.a(x)
        return self.head(self.b(self.seen.relu()).relu())


class Reading(Net):
    """Data steer its Python: module mode."""

    def forward(self, x):
        return super().forward(x) * (2.0 if float(x.sum()) > 1e9 else 1.0)


def receiver(small):
    (hook,) = small.get_submodule("a")._forward_hooks.values()
    return hook.__self__


@pytest.mark.parametrize("kind", [Net, Reading])
def test_a_method_as_a_hook_goes_over_to_the_result(kind):
    model = kind().eval()
    small = fxprune.compress(model, IMAGE, channels=0.5)
    assert model.seen is None and model.calls == []
    owner = receiver(small)
    assert type(owner) is kind and owner is not model and owner.seen is None
    small(IMAGE)
    assert owner.seen == (2, 8, 6, 6) and owner.calls == [small.get_submodule("a")]
    mine = {id(p) for p in small.parameters()}
    assert {id(p) for p in owner.parameters()} == mine, "what it is a method of holds the result's own tensors"


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_such_a_result_is_copied_and_pickled_whole(way):
    small = fxprune.compress(Net().eval(), IMAGE, channels=0.5)
    again = way(small)
    assert torch.equal(again(IMAGE), small(IMAGE))
    assert {id(p) for p in receiver(again).parameters()} == {id(p) for p in again.parameters()}
    assert receiver(again).seen == (2, 8, 6, 6)


def test_features_that_a_method_collects_are_read_by_forward():
    model = Collecting().eval()
    small = fxprune.compress(model, IMAGE, channels=0.5)
    assert model.seen is None and fxprune.record(small).mode == "graph"
    reference.assert_agrees(model, small, fxprune.record(small).plan.keep, lambda batch: (torch.randn(batch, 3, 8, 8),))


def plain():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()


@pytest.mark.parametrize("fold_constants", [False, True])
def test_what_a_closure_writes_into_stays_untouched_until_the_result_is_run(fold_constants):
    model, features = plain(), {}
    model[0].register_forward_hook(lambda module, args, output: features.update(first=output.shape))
    coupling = fxprune.analyze(model, IMAGE)
    small = fxprune.apply(model, fxprune.plan(coupling, model, channels=0.5), fold_constants=fold_constants)
    fxprune.order(model, coupling)
    fxprune.compress(model, IMAGE, channels=0.5)
    assert features == {}
    small(IMAGE)
    assert features == {"first": (2, 4, 6, 6)}


def remember(module, args, output):
    SEEN.append(output.shape)


def test_names_of_the_file_are_not_written_into_either():
    model = plain()
    model[0].register_forward_hook(remember)
    fxprune.compress(model, IMAGE, channels=0.5)
    assert SEEN == []


def test_a_hook_that_cannot_be_copied_is_named():
    model, lock = plain(), threading.Lock()

    def guarded(module, args, output):
        with lock:
            pass

    model[0].register_forward_hook(guarded)
    with pytest.raises(fxprune.InputError, match="the hook 'guarded' refers to what cannot be copied.*remove it"):
        fxprune.compress(model, IMAGE, channels=0.5)


class Closing(nn.Module):
    """A copy of it writes into the original, and reads from itself."""

    def __init__(self):
        super().__init__()
        self.a, self.head, self.found = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 3, 1), {}
        self.a.register_forward_hook(lambda module, args, output: self.found.update(a=output))

    def forward(self, x):
        self.a(x)
        return self.head(self.found["a"])


def test_closures_that_break_the_copies_of_a_model_are_refused_by_name():
    model = Closing().eval()
    with pytest.raises(fxprune.InputError, match=r"the hook '<lambda>' of module 'a' closes over.*KeyError"):
        fxprune.compress(model, IMAGE, channels=0.5)
    assert model.found == {}


def test_a_model_that_fails_by_itself_is_not_said_to_fail_by_its_hooks():
    model = Closing().eval()
    with pytest.raises(fxprune.CaptureError, match="must run on its example inputs"):
        fxprune.compress(model, IMAGE[:, :2], channels=0.5)


def test_closures_over_modules_that_only_look_are_the_results_own():
    model = plain()
    model.seen = []
    model[0].register_forward_hook(lambda module, args, output: model.seen.append(module))
    small = fxprune.compress(model, IMAGE, channels=0.5)
    small(IMAGE)
    assert model.seen == []


class Logger:
    def __init__(self, model):
        self.model, self.lines = model, []

    def __call__(self, module, args, output):
        self.lines.append(output.shape)

    def method(self, module, args, output):
        self.lines.append(output.shape)


@pytest.mark.parametrize("take", [lambda log: log, lambda log: log.method, lambda log: partial(Logger.method, log)],
                         ids=["object", "method", "partial"])
def test_objects_that_hold_the_model_hold_the_copy(take):
    model = plain()
    log = Logger(model)
    model[0].register_forward_hook(take(log))
    small = fxprune.compress(model, IMAGE, channels=0.5)
    small(IMAGE)
    assert log.lines == [] and log.model is model


def test_functions_are_copied_with_all_that_they_hold():
    def outer(items, *, more={}):  # noqa: B006
        def hook(x, default=items, *, key=more):
            items.append(x), default.append(x), key.update(x=x), SEEN.append(x)
            return hook
        return hook

    items = []
    hook = outer(items)
    new = isolated(hook, {})
    assert new(1) is new and new.__name__ == "hook" and items == SEEN == [] and hook.__kwdefaults__ == {"key": {}}
    assert isolated(items.append, {})(1) is None and items == []
    assert rebound(hook, {}) is hook


def contained():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 1)), nn.Conv2d(8, 2, 1)).eval()


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook",
                                      "register_full_backward_hook"])
@pytest.mark.parametrize(("module", "words"), [("1", "module '1'"), ("", "the model")])
def test_hooks_of_containers_that_a_graph_does_not_repeat_are_named(register, module, words):
    model, seen = contained(), []

    def collector(*args):
        seen.append(len(args))

    getattr(model.get_submodule(module), register)(collector)
    with pytest.warns(UserWarning, match=f"the hook 'collector' of {words} belongs to no layer"):
        small = fxprune.compress(model, IMAGE, channels=0.5)
    small(IMAGE)
    assert not seen


def test_hooks_of_layers_and_hooks_of_torch_need_no_word():
    model = contained()
    model[0].register_forward_hook(lambda module, args, output: None)
    nn.utils.parametrizations.weight_norm(model[1][1])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        small = fxprune.compress(model, IMAGE, channels=0.5)
    assert fxprune.record(small).verification.ok


GATHERED, SETTINGS = {}, {"scale": 2.0}


def gathers(module, args, output):
    GATHERED["first"] = output


def scales(module, args, output):
    return output * SETTINGS["scale"]


class ByName(nn.Module):
    """Forward finds what a hook has gathered under a name of the file."""

    def __init__(self, hook):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)
        self.a.register_forward_hook(hook)

    def forward(self, x):
        y = self.b(self.a(x).relu())
        return self.c(y + GATHERED["first"] if GATHERED else y * SETTINGS["scale"])


@pytest.mark.parametrize("stale", [False, True])
def test_what_a_hook_gathers_under_a_name_of_the_file_cannot_be_followed(stale):
    model = ByName(gathers).eval()
    GATHERED.clear()
    if stale:
        model(IMAGE)
    try:
        with pytest.raises(fxprune.InputError, match="hook 'gathers' of module 'a' and .* share 'GATHERED'"):
            fxprune.compress(model, IMAGE, channels=0.5)
        assert bool(GATHERED) is stale
    finally:
        GATHERED.clear()


def test_what_a_hook_only_reads_under_a_name_of_the_file_is_no_obstacle():
    model = ByName(scales).eval()
    small = fxprune.compress(model, IMAGE, channels=0.5)
    reference.assert_agrees(model, small, fxprune.record(small).plan.keep, lambda batch: (torch.randn(batch, 3, 8, 8),))


class ByClosure(nn.Module):
    """A collector in a closure that both the hook and an attribute of the model hold."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(16, 2, 1)
        features = {}
        self.a.register_forward_hook(lambda module, args, output: features.update(a=output))
        self.features = lambda: features

    def forward(self, x):
        y = self.b(self.a(x).relu())
        return self.c(torch.cat([y, self.features()["a"]], 1))


def test_features_that_a_closure_collects_are_read_by_forward():
    model = ByClosure().eval()
    small = fxprune.compress(model, IMAGE, channels=0.5)
    assert not model.features() and fxprune.record(small).mode == "graph"
    reference.assert_agrees(model, small, fxprune.record(small).plan.keep, lambda batch: (torch.randn(batch, 3, 8, 8),))
