"""A latency budget from end to end, on a clock that is a function of shapes: what is kept, corrected and refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from latency_nets import Mixed, Narrowing, Residual  # type: ignore[import-not-found]

import fxprune
from fxprune.errors import BudgetError, InputError, MeasurementError
from fxprune.latency import building, correction
from fxprune.latency.samples import Sample
from fxprune.planning.timing import TOLERANCE


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Residual(32, 48).eval()


X = torch.randn(1, 3, 8, 8)


def took(fake, module):
    return fake.prepare(module.eval(), ((X,), {}))()


@pytest.mark.parametrize("share", [0.75, 0.6, 0.5])
def test_half_of_the_time_is_half_of_the_time(net, fake, target, share):
    small = fxprune.compress(net, X, latency=share, target=target, round_to=1)
    timing = fxprune.record(small).latency
    assert (1 - TOLERANCE) * share <= took(fake, small) / took(fake, net) <= share
    assert timing.measured == pytest.approx(took(fake, small)) and timing.original == pytest.approx(took(fake, net))
    assert timing.asked == pytest.approx(share * timing.original) and timing.attempts == 1
    assert timing.predicted == pytest.approx(timing.measured, rel=0.02) == timing.forecast * timing.measured
    assert fxprune.record(small).verification.ok
    assert f"{1000 * timing.asked:.3g} ms asked" in str(timing)


def test_the_plan_is_within_the_time_and_maximal(net, fake, target):
    coupling = fxprune.analyze(net, X)
    table = fxprune.latency_table(coupling, net, target)
    prices = table.priced(coupling, net)
    for share in (0.8, 0.6, 0.45):
        plan = fxprune.plan(coupling, net, latency=share, table=table)
        widths = np.array([plan.widths.get(name, group.size) for name, group in coupling.groups.items()])
        assert prices(widths) <= share * table.seconds
        assert plan.options["latency"]["predicted_ms"] == pytest.approx(1000 * prices(widths))
        for place, (name, group) in enumerate(coupling.prunable.items()):
            wider = widths.copy()
            wider[list(coupling.groups).index(name)] += table.step
            if widths[list(coupling.groups).index(name)] + table.step <= group.size:
                assert prices(wider) > share * table.seconds, (place, name)


def test_a_plan_holds_target_and_table_and_is_drawn_again_from_what_it_holds(net, fake, target, tmp_path):
    coupling = fxprune.analyze(net, X)
    table = fxprune.latency_table(coupling, net, target)
    fake.slower = 1.2
    small = fxprune.compress(net, X, latency_ms=700 * table.seconds, table=table)
    plan = fxprune.record(small).plan
    plan.save(tmp_path / "plan.json")
    held = fxprune.Plan.load(tmp_path / "plan.json").options
    assert held["budget"]["latency_ms"] == pytest.approx(700 * table.seconds)
    assert held["latency"]["target"] == table.target.to_dict() and held["latency"]["table"] == table.digest
    assert held["latency"]["correction"] > 1.1 and held["round_to"] == table.step == 4
    again = fxprune.plan(coupling, net, **held["budget"], table=table, correction=held["latency"]["correction"])
    # It was corrected beside one step that saved too much.
    assert again == plan and held["budget"].keys() == {"latency_ms", "channels"}


def test_a_table_that_is_off_is_corrected(net, fake, target):
    coupling = fxprune.analyze(net, X)
    table = fxprune.latency_table(coupling, net, target)
    # From now on models take a fifth more than their layers. (The same share of the original is the same plan then.)
    fake.slower = 1.2
    timing = fxprune.record(fxprune.compress(net, X, latency_ms=500 * table.seconds, table=table, round_to=1)).latency
    assert timing.attempts == 2 and timing.forecast == pytest.approx(1 / 1.2, rel=0.02)
    assert abs(timing.measured / timing.asked - 1) <= TOLERANCE
    assert timing.predicted == pytest.approx(timing.measured, rel=0.02)


def test_what_a_call_costs_is_counted_once_and_not_with_every_layer(net, fake, target):
    fake.idle = took(fake, net) / 4
    table = fxprune.latency_table(fxprune.analyze(net, X), net, target)
    assert table.idle == pytest.approx(fake.idle)
    record = fxprune.record(fxprune.compress(net, X, latency=0.6, table=table, round_to=1))
    assert record.latency.attempts == 1 and record.latency.forecast == pytest.approx(1.0, rel=0.01)
    after, idle = sum(layer.measured for layer in record.latency.layers), fake.idle
    assert after + idle == pytest.approx(record.latency.measured, rel=0.01)


def test_what_a_call_costs_is_timed_as_cold_as_layers_are(net, fake, target):
    """After a model a call comes upon a foreign runtime, right after itself upon its own caches."""
    real, last = fake.prepare, []

    def prepare(module, inputs):
        call, idle = real(module, inputs), isinstance(module, building.Increment)

        def timed():
            before = last[-1] if last else None
            last.append(timed)
            if not idle:
                return call()
            return call() * (0.2 if before is timed else 1 if before in idles else 5)

        if idle:
            idles.append(timed)
        return timed

    idles = []
    fake.prepare = prepare
    assert fxprune.latency_table(fxprune.analyze(net, X), net, target).idle == pytest.approx(fake.idle)
    # Where a call enters nothing, it costs nothing of its own.
    fake.session = False
    assert fxprune.latency_table(fxprune.analyze(net, X), net, target).idle == 0


def test_a_machine_that_is_slower_by_now_keeps_the_same_share(net, fake, target):
    coupling = fxprune.analyze(net, X)
    table = fxprune.latency_table(coupling, net, target)
    fake.speed = lambda: 1.7
    timing = fxprune.record(fxprune.compress(net, X, latency=0.5, table=table, round_to=1)).latency
    assert timing.attempts == 1 and timing.forecast == pytest.approx(1.0, rel=0.01)
    assert timing.original == pytest.approx(1.7 * table.seconds, rel=0.01)
    assert timing.predicted == pytest.approx(timing.measured, rel=0.01)


class Drawn:
    """What draws plans of two groups of 100 channels, of which ``narrow`` is cut first; a channel takes a hundredth. It
    notes by which factors, and within which bounds, it was asked."""

    groups = {name: SimpleNamespace(size=100, frozen=False) for name in ("narrow", "wide")}

    def __init__(self, step=1, narrow=(20, 60)):
        self.step, self.narrow, self.asked = step, narrow, []

    def __call__(self, factor, bounds=None):
        self.asked.append((factor, bounds))
        least, most = {"narrow": self.narrow[0], "wide": 20}, {"narrow": self.narrow[1], "wide": 100}
        for name, (low, high) in (bounds or {}).items():
            least[name], most[name] = round(100 * low + 0.5), round(100 * high + 0.5)
        room = int(100 / factor + 1e-4)
        narrow = min(max(room - most["wide"], least["narrow"]), most["narrow"]) // self.step * self.step
        wide = min(room - narrow, most["wide"]) // self.step * self.step
        if wide < least["wide"]:
            raise BudgetError("cannot be reached")
        return SimpleNamespace(widths={"narrow": narrow, "wide": wide})


def tried(reached, narrow, wide):
    """An attempt at a time of 1, of these widths, which took so long."""
    plan, time = SimpleNamespace(widths={"narrow": narrow, "wide": wide}), Sample(reached, reached, reached, 9)
    return correction.Attempt(plan, (narrow + wide) / 100, 1.0, 2.0, time, 1.0)


def other(attempts, draw):
    found = correction._other(attempts, draw, draw.groups)
    return found and found.widths


def test_what_the_first_plan_took_corrects_the_second():
    """So that it takes a hundredth less than what was asked: what is measured may then be off to either side."""
    draw = Drawn()
    assert other([tried(1.3, 20, 80)], draw) == {"narrow": 20, "wide": 56}
    assert draw.asked == [(pytest.approx(1.3 / 0.99), None)]


def test_plans_on_both_sides_have_the_next_one_between_them():
    """No group is wider or narrower than in both, and the time is taken to rise with the table's."""
    draw = Drawn()
    assert other([tried(0.79, 30, 60), tried(1.19, 40, 90)], draw) == {"narrow": 30, "wide": 80}
    (factor, bounds), = draw.asked
    assert factor == pytest.approx(100 / 110)
    assert bounds == {"narrow": (0.295, 0.395), "wide": (0.595, 0.895)}
    assert other([tried(0.5, 20, 20), tried(0.79, 30, 60), tried(2.0, 60, 90), tried(1.19, 40, 90)], Drawn()) == {
        "narrow": 30, "wide": 80}


@pytest.mark.parametrize(("fast", "slow", "found"), [(0.985, 1.5, 62), (0.5, 0.9900001, 62)])
def test_what_was_tried_is_passed_over_for_another_plan_between(fast, slow, found):
    """The factor between two plans leads to one of them, near which it lies; it is halved from there."""
    draw = Drawn()
    assert other([tried(fast, 30, 60), tried(slow, 30, 65)], draw) == {"narrow": 30, "wide": found}
    assert len(draw.asked) > 1


def test_where_nothing_between_is_as_fast_what_is_slower_is_taken():
    class Jumping(Drawn):
        """Within bounds nothing is faster than 1.15."""

        def __call__(self, factor, bounds=None):
            plan = super().__call__(factor, bounds)
            if bounds and 1 / factor < 1.15:
                raise BudgetError("cannot be reached")
            return plan

    draw = Jumping()
    assert other([tried(0.79, 30, 60), tried(1.19, 40, 90)], draw) == {"narrow": 30, "wide": 89}
    assert [factor for factor, _ in draw.asked] == [pytest.approx(100 / 110), pytest.approx((100 / 110 + 1 / 1.3) / 2)]


def test_beside_one_step_that_saves_too_much_others_are_taken():
    """From the plan above, or where that cannot be, from the one below; the step itself stays as it is there."""
    draw = Drawn(step=10)
    assert other([tried(0.8, 20, 80), tried(1.1, 30, 80)], draw) == {"narrow": 30, "wide": 60}
    assert draw.asked[-1] == (pytest.approx(1.0 / 0.99), {"narrow": (0.295, 0.295)})
    assert len(draw.asked) == correction.HALVINGS + 1
    assert other([tried(0.6, 50, 20), tried(1.1, 60, 20)], draw) == {"narrow": 50, "wide": 60}
    assert draw.asked[-1] == (pytest.approx(6 / 7 / 0.99), {"narrow": (0.495, 0.495)})


def test_where_no_step_is_left_there_is_no_other_plan():
    draw = Drawn(step=50, narrow=(0, 0))
    assert other([tried(1.02, 0, 50)], draw) is None and len(draw.asked) == 2
    draw = Drawn(narrow=(20, 20))
    assert other([tried(0.8, 20, 60), tried(1.2, 20, 61)], draw) is None
    assert len(draw.asked) == correction.HALVINGS + 2


def test_what_the_table_says_cannot_be_reached_is_tried(net, fake, target):
    """Models may be faster than their layers add up to; the measured time decides."""
    coupling = fxprune.analyze(net, X)
    table = fxprune.latency_table(coupling, net, target)
    options = {"table": table, "round_to": 1, "min_channels": 8}
    with pytest.raises(BudgetError, match="cannot be reached: the least that these groups reach is") as refused:
        fxprune.compress(net, X, latency_ms=1e-3 * table.seconds, **options)
    options["latency_ms"] = 0.9 * float(str(refused.value).partition("reach is ")[2].split()[0])
    with pytest.raises(BudgetError, match=r"latency_ms=\d\S+ must be kept to within 3%, and \d plans took .* nearest"):
        fxprune.compress(net, X, **options)
    fake.slower = 0.8
    timing = fxprune.record(fxprune.compress(net, X, **options)).latency
    assert 0.97 * timing.asked <= timing.measured <= timing.asked


def test_what_the_target_likes_is_eased_in_narrow_groups_and_what_is_demanded_is_not(fake, target):
    torch.manual_seed(0)
    narrow, fake.step = Residual(16, 24).eval(), 16
    coupling = fxprune.analyze(narrow, X)
    table = fxprune.latency_table(coupling, narrow, target)
    plan = fxprune.plan(coupling, narrow, latency=0.5, table=table)
    assert plan.options["round_to"] == 16 and {width % 4 for width in plan.widths.values()} == {0}
    assert any(width % 16 for width in plan.widths.values())
    with pytest.raises(BudgetError, match="cannot be reached"):
        fxprune.plan(coupling, narrow, latency=0.5, table=table, round_to=16)


def test_milliseconds(net, fake, target):
    asked = 600 * took(fake, net)
    timing = fxprune.record(fxprune.compress(net, X, latency_ms=asked, target=target, round_to=1)).latency
    assert timing.asked == pytest.approx(asked / 1000) and timing.measured <= timing.asked


def test_time_by_layer_and_dead_steps(net, fake, target):
    fake.block = 8
    coupling = fxprune.analyze(net, X)
    table = fxprune.latency_table(coupling, net, target, step=8)
    small = fxprune.compress(net, X, latency=0.6, table=table, round_to=1)
    record = fxprune.record(small)
    timing = record.latency
    assert [layer.name for layer in timing.layers][:2] == ["stem", "blocks_0_conv1"]
    assert all(layer.measured == pytest.approx(layer.predicted, rel=0.05) for layer in timing.layers)
    assert sum(layer.before for layer in timing.layers) == pytest.approx(timing.original, rel=0.02)
    # On stairs of 8, what lies between two of them stays: its removal would save nothing.
    assert all(record.plan.widths[name] % 8 == 0 for name in timing.dead)
    assert set(timing.dead.values()) == {7} and timing.dead.keys() == record.plan.widths.keys()


def test_counts_bound_it_besides(net, fake, target):
    other, x = Narrowing().eval(), torch.randn(1, 3, 12, 12)
    free, held = (fxprune.record(fxprune.compress(other, x, latency=0.5, target=target, round_to=1, **bounds))
                  for bounds in ({}, {"params": 0.55}))
    assert free.after.params > 0.8 * free.before.params and held.after.params <= 0.55 * held.before.params
    assert 0.97 * held.latency.asked <= held.latency.measured <= held.latency.asked
    assert held.plan.options["budget"] == {"latency": 0.5, "params": 0.55}
    with pytest.raises(BudgetError, match=r"latency=0\.9 and macs=0\.2 contradict each other: macs=0\.2 alone leaves "
                                          r".* write latency=0\.[123]\d*, or drop one of them"):
        fxprune.compress(net, X, latency=0.9, macs=0.2, target=target)


def test_votes_scope_ignore_folds_and_modes_work_as_everywhere(fake, target):
    torch.manual_seed(0)
    net, x = Mixed().eval(), torch.randn(2, 3, 4, 4)
    small = fxprune.compress(net, x, latency=0.7, target=target, round_to=1, vote="union", scope="uniform",
                             criterion="l1", ignore=["grouped"], fold_constants=True)
    record = fxprune.record(small)
    assert record.verification.ok and record.latency.measured <= record.latency.asked
    assert all("grouped" not in name for name in record.plan.widths)


def test_the_module_form_of_what_cannot_be_traced(fake, target):
    class Steered(Residual):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > -1e9 else x

    small = fxprune.compress(Steered(32, 48).eval(), X, latency=0.6, target=target, round_to=1)
    assert isinstance(small, Steered) and fxprune.record(small).mode == "module"
    assert fxprune.record(small).latency.measured <= fxprune.record(small).latency.asked


def test_a_step_that_leads_past_what_was_asked_is_accepted_when_nothing_lies_between(fake, target):
    torch.manual_seed(0)
    net = Residual(8, 8).eval()
    timing = fxprune.record(fxprune.compress(net, X, latency=0.9, target=target, round_to=4)).latency
    assert timing.measured < (1 - TOLERANCE) * timing.asked and timing.attempts < correction.ATTEMPTS


def test_what_cannot_be_reached_or_kept_is_said(net, fake, target, monkeypatch):
    with pytest.raises(BudgetError, match=r"ms cannot be reached: the least that these groups reach is"):
        fxprune.compress(net, X, latency=0.001, target=target)
    coupling = fxprune.analyze(net, X)
    table = fxprune.latency_table(coupling, net, target)
    # A machine on which models become slower with every one that is prepared: no table says that beforehand.
    prepared = []
    real = fake.prepare

    def slower(module, inputs):
        call = real(module, inputs)
        prepared.append(call)
        factor = 1 + 0.5 * len(prepared)
        return lambda: factor * call()

    monkeypatch.setattr(fake, "prepare", slower)
    n = r"=[\d.]+"
    said = n + r" must be kept to within 3%, and 5 plans took ([\d.]+, ){4}[\d.]+"
    with pytest.raises(BudgetError, match=rf"latency{said} of the original's time; the nearest is latency{n} \("):
        fxprune.compress(net, X, latency=0.6, table=table, round_to=1)
    with pytest.raises(BudgetError, match=rf"latency_ms{said} ms; the nearest is latency_ms{n} \([\d.]+ .*\): ask"):
        fxprune.compress(net, X, latency_ms=600 * table.seconds, table=table, round_to=1)


def test_noise_beyond_the_tolerance_is_refused(net, fake, target):
    coupling = fxprune.analyze(net, X)
    table = fxprune.latency_table(coupling, net, target)
    fake.noise = 0.4
    with pytest.raises(MeasurementError, match=r"times of the model and the pruned one must be steady enough"):
        fxprune.compress(net, X, latency=0.6, table=table, round_to=1)


def test_nearly_steady_times_are_measured_until_they_are(net, fake, target):
    coupling = fxprune.analyze(net, X)
    table = fxprune.latency_table(coupling, net, target)
    fake.noise, fake.passes = 0.03, 0
    timing = fxprune.record(fxprune.compress(net, X, latency=0.6, table=table, round_to=1)).latency
    low, high = timing.spread
    assert low < timing.measured < high and abs(timing.measured / timing.asked - 1) <= TOLERANCE


@pytest.mark.parametrize(("options", "message"), [
    ({"latency": 1.5}, r"latency must be the fraction kept, in \(0, 1\], got 1\.5; write latency=0\.5"),
    ({"latency": 50}, r"latency must be the fraction kept, in \(0, 1\], got 50; write latency=0\.5"),
    ({"latency_ms": 0}, r"latency_ms must be milliseconds above zero, got 0; write latency_ms=12\.0"),
    ({"latency_ms": "a"}, r"latency_ms must be milliseconds above zero, got 'a'"),
    ({"latency": 0.5, "latency_ms": 3}, r"exactly one of .* got latency=0\.5 and latency_ms=3"),
    ({"latency": 0.5, "channels": 0.5},
     r"latency= may have macs=, params= and channels= by pattern beside it, got channels=; drop one"),
    ({"latency": 0.5, "macs": 2}, r"macs must be the fraction kept, in \(0, 1\], got 2"),
    ({"latency": 0.5, "round_to": 0}, r"round_to must be an integer >= 1, got 0"),
])
def test_budgets_that_make_no_sense(net, fake, target, options, message):
    with pytest.raises(BudgetError, match=message):
        fxprune.compress(net, X, target=target, **options)


def test_arguments_that_do_not_go_together(net, fake, target):
    with pytest.raises(InputError, match="target= and table= say where a time is measured, and no time is asked"):
        fxprune.compress(net, X, macs=0.5, target=target)
    with pytest.raises(InputError, match=r"target must be a fxprune\.Target, got str"):
        fxprune.compress(net, X, latency=0.5, target="cpu")
    coupling = fxprune.analyze(net, X)
    with pytest.raises(InputError, match=r"latency= needs a table of what widths cost: write table=fxprune\.latency_"):
        fxprune.plan(coupling, net, latency=0.5)
    with pytest.raises(InputError, match="correction must be a number above zero, got -1"):
        fxprune.plan(coupling, net, latency=0.5, table=fxprune.latency_table(coupling, net, target), correction=-1)


def test_reports_show_the_time_by_layer_and_the_dead_steps(net, fake, target, tmp_path):
    fake.block = 8
    coupling = fxprune.analyze(net, X)
    table = fxprune.latency_table(coupling, net, target, step=8)
    small = fxprune.compress(net, X, latency=0.6, table=table, round_to=1)
    record = fxprune.record(small)
    timing = record.latency
    text = record.report()
    stem = timing.layers[0]
    for wanted in ("ms by layer", f"time: {timing}", f"{1000 * stem.before:.3f}", f"{1000 * stem.predicted:.3f}",
                   f"the removal of {sum(timing.dead.values())} more channels would save nothing here"):
        assert wanted in text
    fxprune.save(small, tmp_path / "out")
    page, report = ((tmp_path / "out" / name).read_text() for name in ("report.html", "report.md"))
    assert "time by layer" in page and f"<td>{1000 * stem.measured:.3f}</td>" in page and "dead steps" in page
    assert "ms by layer" in report
    # Without a latency budget nothing is said of time.
    plain = fxprune.record(fxprune.compress(net, X, macs=0.5))
    assert plain.latency is None and "ms by layer" not in plain.report() and "time" not in plain.report(layers=False)
