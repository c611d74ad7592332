"""Measuring a table: what it holds, that likes are measured once, that it is resumed, and what is refused."""

import json

import numpy as np
import pytest
import torch
from latency_nets import Mixed, Residual  # type: ignore[import-not-found]
from torch import nn

import fxprune
from fxprune.errors import InputError, MeasurementError, MissingExtraError
from fxprune.latency import backends, building
from fxprune.latency.entries import steady
from fxprune.latency.grid import LEVELS
from fxprune.latency.layers import layers_of
from fxprune.latency.target import machine
from fxprune.searching import netadapt


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture
def coupling(net):
    return fxprune.analyze(net, torch.randn(1, 3, 8, 8))


def test_a_table_adds_up_to_the_model(net, coupling, fake, target):
    table = fxprune.latency_table(coupling, net, target)
    assert table.target == target.resolved(coupling.inputs) and (table.target.batch, table.target.threads) == (1, 1)
    assert (table.machine, table.backend, table.unpriced) == (machine(), "fake 1", {})
    prices = table.priced(coupling, net)
    assert prices(coupling.widths) == pytest.approx(table.seconds) and prices.scale == pytest.approx(1.0)
    # What the layers do not explain: the reshape of nothing, at most.
    assert 0 <= prices.base < 0.02 * table.seconds
    layers = layers_of(coupling).layers
    assert [term.layer.name for term in prices.terms] == [layer.name for layer in layers]
    assert {entry.partition("(")[0] for entry in table.entries} == {"conv2d", "mean", "linear"}


def test_what_is_predicted_is_what_an_emitted_module_takes(net, coupling, fake, target):
    table = fxprune.latency_table(coupling, net, target)
    prices = table.priced(coupling, net)
    for keep in (0.8, 0.5, 0.3):
        plan = fxprune.plan(coupling, net, channels=keep)
        small = fxprune.apply(net, plan)
        widths = np.array([plan.widths.get(name, group.size) for name, group in coupling.groups.items()])
        took = fake.prepare(small.eval(), ((torch.randn(1, 3, 8, 8),), {}))()
        assert prices(widths) == pytest.approx(took, rel=0.02)


def test_steps_of_netadapt_save_the_time_that_the_table_of_the_first_model_says(net, coupling, fake, target):
    table = fxprune.latency_table(coupling, net, target)
    found = netadapt(net, torch.randn(1, 3, 8, 8), lambda small: 0.0, latency=0.6, step=0.1, table=table)
    shares = [step.share for step in found.steps]
    assert len(shares) > 2 and shares == sorted(shares, reverse=True) and shares[-2] > 0.6 >= shares[-1]
    assert all(before - after > 0.1 for before, after in zip([1.0, *shares], shares[:-1], strict=False))
    took = fake.prepare(found.module.eval(), ((torch.randn(1, 3, 8, 8),), {}))()
    assert shares[-1] * table.seconds == pytest.approx(took, rel=0.02)


def test_layers_that_take_longer_alone_than_together_cost_their_share(net, coupling, fake, target):
    fake.slower = 0.5
    table = fxprune.latency_table(coupling, net, target)
    prices = table.priced(coupling, net)
    assert prices.base == 0 and prices.scale == pytest.approx(0.5, rel=0.02)
    assert prices(coupling.widths) == pytest.approx(table.seconds)


def test_likes_are_measured_once(net, coupling, fake, target):
    table = fxprune.latency_table(coupling, net, target)
    layers = layers_of(coupling).layers
    distinct = {layer.program.key(layer.full) for layer in layers}
    assert len(layers) == 7 and len(distinct) == 5
    # At a step of 4, widths of 16 and of 24 are measured at 4 lengths each: two layers have both, three have one.
    assert len(table.entries) == 2 * 16 + 3 * 4
    # What was prepared besides: the whole model, and three calls in which nothing is done. (The mean's calls have no
    # weights to be told by.)
    assert len(fake.prepared) == 4 + len(table.entries)


def test_another_batch_size_is_another_table(net, coupling, fake):
    table = fxprune.latency_table(coupling, net, fxprune.Target(threads=1, backend="fake", batch=4))
    one = fxprune.latency_table(coupling, net, fxprune.Target(threads=1, backend="fake"))
    assert table.target.batch == 4 and table.seconds > 3 * one.seconds and table.model != one.model
    assert any(key.startswith("conv2d(4x3x8x8") for key in table.entries)
    assert table.priced(coupling, net)(coupling.widths) == pytest.approx(table.seconds)


def test_a_machine_that_slows_down_in_between_is_brought_to_one_scale(net, coupling, fake, target, monkeypatch):
    steady = fxprune.latency_table(coupling, net, target)
    monkeypatch.setattr("fxprune.latency.entries.ENTRIES", 4)
    fake.passes, fake.speed = 0, lambda: 1 + fake.passes // 200
    drifting = fxprune.latency_table(coupling, net, target)
    assert fake.passes > 500
    for key, sample in steady.entries.items():
        assert drifting.entries[key].median == pytest.approx(sample.median, rel=0.01), key


def test_the_step_is_found_by_measuring(fake, target, monkeypatch):
    wide = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 4, 1)).eval()
    coupling = fxprune.analyze(wide, torch.randn(1, 3, 16, 16))
    found = []
    for block in (8, 16, 1):
        fake.block = block
        found.append(fxprune.latency_table(coupling, wide, target, minutes=0.001).step)
    assert found == [8, 16, 1]
    # Of all layers that are wide enough, each once.
    monkeypatch.setattr(building, "step_in", lambda layers: len(layers))
    assert fxprune.latency_table(coupling, wide, target, minutes=0.001).step == 2
    monkeypatch.undo()
    # Where no layer is wide enough, the backend says what it likes.
    net = Residual().eval()
    assert fxprune.latency_table(fxprune.analyze(net, torch.randn(1, 3, 8, 8)), net, target, minutes=0.001).step == 4
    assert fxprune.latency_table(coupling, wide, target, minutes=0.001, step=2).step == 2


def test_little_time_makes_a_coarser_table_and_never_a_shorter_one(net, coupling, fake, target, monkeypatch):
    ticks = iter(range(0, 10 ** 6, 100))
    monkeypatch.setattr("fxprune.latency.building.time.monotonic", lambda: float(next(ticks)))
    table = fxprune.latency_table(coupling, net, target, minutes=0.001)
    layers = layers_of(coupling).layers
    assert all(table.time(layer) is not None for layer in layers)
    fine = fxprune.latency_table(coupling, net, target, minutes=10 ** 6)
    assert set(table.entries) < set(fine.entries)
    assert table.priced(coupling, net)(coupling.widths) == pytest.approx(table.seconds)


def test_what_takes_most_is_measured_finely_first(net, coupling, fake, target, monkeypatch):
    monkeypatch.setattr("fxprune.latency.entries.ENTRIES", 5)
    coarse = fxprune.latency_table(coupling, net, target, minutes=1e-9)
    # Time is up after the first batch of the second level.
    ticks = iter((0.0, 0.0, *[1e9] * 9))
    monkeypatch.setattr("fxprune.latency.building.time.monotonic", lambda: next(ticks))
    table = fxprune.latency_table(coupling, net, target)
    assert len(table.entries) == len(coarse.entries) + 5
    # The first convolution of the blocks, not the stem, whose weights are three wide.
    assert all(key.startswith("conv2d") and key.endswith("relu()") and "x3x3x3," not in key
               for key in table.entries.keys() - coarse.entries.keys())


def test_an_interrupted_table_is_gone_on_with(net, coupling, fake, target, tmp_path, monkeypatch):
    monkeypatch.setattr("fxprune.latency.entries.ENTRIES", 6)
    whole = fxprune.latency_table(coupling, net, target)
    path = tmp_path / "table.json"
    batches = []

    def interrupted(items, what):
        for batch in items:
            if len(batches) == 3:
                raise KeyboardInterrupt
            batches.append(batch)
            yield batch

    monkeypatch.setattr("fxprune.latency.entries.progress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fxprune.latency_table(coupling, net, target, path=path)
    known = fxprune.LatencyTable.load(path)
    assert 0 < len(known.entries) < len(whole.entries)
    monkeypatch.setattr("fxprune.latency.entries.progress", lambda items, what: items)
    fake.prepared.clear()
    table = fxprune.latency_table(coupling, net, target, path=path)
    assert set(table.entries) == set(whole.entries) and fxprune.LatencyTable.load(path).digest == table.digest
    assert len(fake.prepared) == 1 + len(whole.entries) - len(known.entries)


def test_a_missing_key_is_measured(net, coupling, fake, target):
    table = fxprune.latency_table(coupling, net, target)
    part = fxprune.LatencyTable(**{**vars(table), "entries": {
        key: sample for key, sample in table.entries.items() if "add" not in key}})
    fake.prepared.clear()
    assert part.priced(coupling, net)(coupling.widths) == pytest.approx(table.seconds)
    assert fake.prepared.count("layer") > 0 and not any("add" in key for key in part.entries)


def test_all_kinds_of_layers(fake, target):
    net = Mixed().eval()
    coupling = fxprune.analyze(net, torch.randn(2, 3, 4, 4))
    table = fxprune.latency_table(coupling, net, target)
    assert table.unpriced == {} and table.priced(coupling, net)(coupling.widths) == pytest.approx(table.seconds)


def test_noise_is_said_measured_longer_and_refused(net, coupling, fake, target):
    fake.noise = 0.6
    with pytest.warns(UserWarning, match=r"times of layers are noisy: after 280 rounds their medians may be off by"):
        fxprune.latency_table(coupling, net, target, minutes=0.001)
    fake.noise = 2.0
    with pytest.raises(MeasurementError, match=r"must be steady enough to tell a step, and after \d{3} rounds"):
        fxprune.latency_table(coupling, net, target, minutes=0.001)


@pytest.mark.parametrize(("seconds", "rounds"), [(1e-3, 280), (0.05, 120), (0.6, 10), (2.0, 5)])
def test_short_passes_are_measured_more_often(seconds, rounds):
    """As often as twelve seconds allow; one that does not pass the limit of noise is refused then."""
    with pytest.raises(MeasurementError, match=f"after {rounds} rounds"):
        steady([lambda: seconds, lambda: seconds], lambda times: 1.0, "calls")


@pytest.mark.parametrize("said", [-0.5, 0.0, float("nan"), float("inf")])
def test_a_clock_that_runs_backwards(net, coupling, fake, target, said):
    fake.speed = lambda: said
    with pytest.raises(MeasurementError, match="a pass must take a time above zero, and the clock said"):
        fxprune.latency_table(coupling, net, target)


@pytest.mark.parametrize(("options", "message"), [
    ({"minutes": 0}, "minutes must be a number above zero, got 0; write minutes=3"),
    ({"minutes": "3"}, "minutes must be a number above zero, got '3'; write minutes=3"),
    ({"step": 0}, "step must be a whole number of at least 1, or None, got 0; write step=8"),
    ({"step": True}, "step must be a whole number of at least 1, or None, got True; write step=8"),
])
def test_options_that_make_no_sense(net, coupling, target, options, message):
    with pytest.raises(InputError) as error:
        fxprune.latency_table(coupling, net, target, **options)
    assert str(error.value) == message


def test_targets_that_are_not_there(net, coupling, monkeypatch):
    def measured(**options):
        return fxprune.latency_table(coupling, net, fxprune.Target(**options))

    with pytest.raises(InputError, match=r"device must be one that this PyTorch can use, got 'cuda:9'"):
        measured(device="cuda:9")
    with pytest.raises(InputError, match=r"unknown backend 'eagr'; did you mean 'eager'\?"):
        measured(backend="eagr")
    monkeypatch.setattr(backends.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"torch\.compile needs a C\+\+ compiler on the CPU"):
        measured(compile=True)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"a CUDA target needs a GPU that this PyTorch can use, and there is none"):
            measured(backend="cuda")
    real = __import__

    def without(name, *rest):
        if name.partition(".")[0] == "onnxruntime":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr("builtins.__import__", without)
    with pytest.raises(MissingExtraError, match=r"this target needs onnxruntime; write pip install 'fxprune\[onnx\]'"):
        measured(backend="onnxruntime")


def test_a_table_of_something_else_is_refused_and_says_what(net, coupling, fake, target, tmp_path):
    path = tmp_path / "table.json"
    table = fxprune.latency_table(coupling, net, target, path=path)
    other = Residual(8).eval()
    others = fxprune.analyze(other, torch.randn(1, 3, 8, 8))
    with pytest.raises(InputError, match="holds for the model and inputs that it was measured on.*table_check=False"):
        fxprune.plan(others, other, latency=0.5, table=table)
    larger = fxprune.analyze(net, torch.randn(1, 3, 12, 12))
    with pytest.raises(InputError, match="model and inputs"):
        fxprune.plan(larger, net, latency=0.5, table=table)
    moved = fxprune.LatencyTable(**{**vars(table), "machine": "another"})
    with pytest.raises(InputError, match="holds for the machine that it was measured on: 'another'"):
        fxprune.plan(coupling, net, latency=0.5, table=moved)
    assert fxprune.plan(coupling, net, latency=0.5, table=moved, table_check=False).widths
    for change, word in (({"threads": 2}, "threads"), ({"dtype": "bfloat16"}, "dtype"),
                         ({"memory_format": "channels_last"}, "memory_format")):
        asked = fxprune.Target(**{**target.to_dict(), **change})
        with pytest.raises(InputError, match=f"holds for the {word} that it was measured on"):
            fxprune.latency_table(coupling, net, asked, path=path)
        with pytest.raises(InputError, match=f"holds for the {word} that it was measured on"):
            fxprune.compress(net, torch.randn(1, 3, 8, 8), latency=0.5, target=asked, table=table)


def test_the_model_is_left_as_it_was(net, coupling, fake, target):
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    fxprune.latency_table(coupling, net, fxprune.Target(threads=threads + 1, backend="fake"), minutes=0.001)
    assert net.training and torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert next(net.parameters()).requires_grad


def test_the_file_is_json_for_people_and_read_back_whole(net, coupling, fake, target, tmp_path):
    path = tmp_path / "table.json"
    table = fxprune.latency_table(coupling, net, target, path=path)
    data = json.loads(path.read_text())
    assert data["format"] == "fxprune latency table" and data["target"]["backend"] == "fake"
    key = next(iter(table.entries))
    assert data["entries"][key][0] == pytest.approx(1000 * table.entries[key].median, rel=1e-5)
    again = fxprune.LatencyTable.load(path)
    assert again.digest == table.digest and again.digest.startswith("sha256:")
    assert list(tmp_path.iterdir()) == [path]
    assert len(LEVELS) == 4


def _damages():
    yield "not json", lambda data: "{", "must be JSON"
    yield "another file", lambda data: {"a": 1}, "format must be 'fxprune latency table'"
    yield "a later version", lambda data: {**data, "version": 3}, "version must be 2"
    yield "a key more", lambda data: {**data, "more": 1}, "lacks or adds more"
    yield "a step of text", lambda data: {**data, "step": "8"}, "step must be an integer from 1 to 4096"
    yield "a target's field", lambda data: {**data, "target": {}}, "a target must have the fields"
    yield "a machine's number", lambda data: {**data, "machine": 3}, "machine must be a string"
    yield "a negative time", lambda data: {**data, "whole": [-1, 1, 1, 9]}, "whole must be"
    yield "a time that is none", lambda data: {**data, "whole": [True, 1, 1, 9]}, "whole must be"
    yield "quartiles in disorder", lambda data: {**data, "whole": [1, 2, 3, 9]}, "median between its quartiles"
    yield "a call that gives time back", lambda data: {**data, "idle": -1}, "idle must be milliseconds of at least 0"
    yield "an entry of text", lambda data: {**data, "entries": {"a": "1"}}, r"entries\['a'\] must be"
    yield "entries in a list", lambda data: {**data, "entries": []}, "entries must be an object"
    yield "reasons in a list", lambda data: {**data, "unpriced": {"a": 1}}, "unpriced must map nodes to reasons"


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in _damages()], ids=[case[0] for case in _damages()])
def test_a_damaged_file_is_refused(net, coupling, fake, target, tmp_path, change, message):
    path = tmp_path / "table.json"
    fxprune.latency_table(coupling, net, target, path=path, minutes=0.001)
    changed = change(json.loads(path.read_text()))
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(InputError, match=f"damaged latency table: .*{message}"):
        fxprune.LatencyTable.load(path)


def test_files_that_are_not_there(net, coupling, fake, target, tmp_path):
    with pytest.raises(InputError, match="a latency table is a file of at most"):
        fxprune.LatencyTable.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="the latency table cannot be written to"):
        fxprune.latency_table(coupling, net, target, path=tmp_path / "none" / "table.json", minutes=0.001)
