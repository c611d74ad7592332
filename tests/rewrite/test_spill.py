"""What waits in a file: found as it was, bounded in memory, and gone afterwards."""

import gc
import tempfile
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxprune
from fxprune.capture.stepwise import stepwise
from fxprune.errors import InputError
from fxprune.rewrite import layer_moments, recovery, spill
from fxprune.rewrite.spill import WEAK, LiveTensors, Spill

pytestmark = pytest.mark.skipif(not WEAK, reason="this release of torch keeps what waits in memory")


@pytest.fixture(autouse=True)
def everything_is_worth_a_file(monkeypatch):
    monkeypatch.setattr(spill, "WORTH", 1)


class Mixed(nn.Module):
    """A shortcut over a normed convolution, written into in place, and attention over its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm, self.attention = nn.BatchNorm2d(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu_()
        x = F.relu(x + self.norm(self.conv(x)), inplace=True)
        t = x.flatten(2).transpose(1, 2)
        t = t + self.attention(t, t, t, need_weights=False)[0]
        return self.head(t.mean(1))


class Reads(nn.Module):
    """Its Python reads data: a module, not a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.up(x).relu()
        return self.down(hidden if float(hidden.sum()) > -1 else -hidden)


def batches(number: int, size: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, 6, 6, generator=generator) for _ in range(number)]


def recovered(model: nn.Module, data: list[torch.Tensor], method: str = "least_squares") -> dict[str, torch.Tensor]:
    small = fxprune.compress(model, data[0], channels=0.6, data=data, recover=method, verify=False)
    assert fxprune.record(small).recovery.layers
    return small.state_dict()


@pytest.mark.parametrize("method", recovery.METHODS)
@pytest.mark.parametrize("make", [Mixed, Reads])
def test_the_same_bits_come_of_it(make, method, monkeypatch):
    torch.manual_seed(0)
    model, data = make().eval(), batches(5)
    copies = [batch.clone() for batch in data]
    held = recovered(model, data, method)
    written = []
    write = Spill.write
    monkeypatch.setattr(Spill, "write", lambda *args: (written.append(args), write(*args)))
    monkeypatch.setattr(recovery, "Spill", lambda: Spill(0))
    away = recovered(model, data, method)
    assert written
    assert all(torch.equal(away[name], value) for name, value in held.items())
    assert all(torch.equal(batch, copy) for batch, copy in zip(data, copies, strict=True))


def test_several_batches_are_one_of_all(monkeypatch):
    """But for what is held out: the last samples of each."""
    monkeypatch.setattr(layer_moments, "HELD", 0.0)
    monkeypatch.setattr(recovery, "HELD", 0.0)
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval(), batches(6)
    monkeypatch.setattr(recovery, "RIDGES", (1e-3,))
    monkeypatch.setattr(recovery, "Spill", lambda: Spill(0))
    one, several = (recovered(model, each) for each in ([torch.cat(data)], data))
    for name, value in one.items():
        torch.testing.assert_close(several[name], value, rtol=1e-5, atol=1e-6)


def bytes_alive() -> int:
    """Of all tensors that Python knows."""
    gc.collect()
    storages = {t.untyped_storage() for t in gc.get_objects() if issubclass(type(t), torch.Tensor) and not t.is_meta}
    return sum(storage.nbytes() for storage in storages)


def most_bytes(model: nn.Module, number: int, monkeypatch: pytest.MonkeyPatch, allowance: int) -> int:
    """What is alive when the second layer's moments have been gathered, beside what was there before."""
    class Generated:
        def __iter__(self):
            generator = torch.Generator().manual_seed(1)
            return (torch.randn(4, 3, 32, 32, generator=generator) for _ in range(number))

    found, gather = [], layer_moments.Rows.moments

    def moments(self, *arguments):
        out = gather(self, *arguments)
        found.append(bytes_alive() if len(found) == 1 else 0)
        return out

    with monkeypatch.context() as patch:
        patch.setattr(layer_moments.Rows, "moments", moments)
        patch.setattr(recovery, "Spill", lambda: Spill(allowance))
        before = bytes_alive()
        fxprune.compress(model, torch.randn(1, 3, 32, 32), channels=0.6, data=Generated(), recover="statistics",
                         verify=False)
    return max(found) - before


def test_memory_does_not_grow_with_the_batches(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 2, 3)).eval()
    few, many = (most_bytes(model, number, monkeypatch, 2 ** 20) for number in (4, 16))
    # One batch's live values are some 400 kB in both networks together.
    assert many - few < 2 ** 18
    assert most_bytes(model, 16, monkeypatch, 2 ** 30) - many > 2 ** 22


class Keeps(nn.Module):
    """Holds on to a table that its first run made."""

    def __init__(self) -> None:
        super().__init__()
        self.table: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.arange(float(x.shape[1])).exp()
        return (x.relu() * self.table).sum(1)


def waiting(model: nn.Module, spilled: Spill, example: torch.Tensor, number: int) -> tuple[LiveTensors, Any, Any]:
    """A run that waits before this operator, with all that it holds in the file."""
    tensors = LiveTensors(spilled)
    run = stepwise(model, tensors.copied(((example,), {})), before=[number], around=tensors.noting())
    tensors.fill()
    stop = run.advance()
    tensors.rest()
    return tensors, run, stop


def test_what_another_run_reads_comes_back():
    spilled, model, x = Spill(0), Keeps(), torch.randn(3, 50)
    first = waiting(model, spilled, x, 4)
    sizes = [model.table.untyped_storage().nbytes()]
    second = waiting(model, spilled, -x, 2)
    first[0].fill()
    first[0].rest()
    sizes.append(model.table.untyped_storage().nbytes())
    assert sizes == [0, 200] and torch.equal(model.table, torch.arange(50.0).exp())
    for (tensors, run, stop), values in ((first, x), (second, -x)):
        tensors.fill()
        assert torch.equal(stop.args[0], values.relu() * model.table)
        run.close()
    spilled.close()


def test_what_a_traceback_refers_to_can_be_shown():
    spilled = Spill(0)
    tensors, run, stop = waiting(nn.ReLU(), spilled, torch.ones(50), 0)
    run.close()
    tensors.release()
    assert stop.args[0].sum() == 50 and not spilled.owners
    spilled.close()


def test_what_numpy_looks_at_stays():
    spilled = Spill(0)
    tensors = LiveTensors(spilled)
    (x, y), _ = tensors.copied(((torch.ones(50), torch.ones(50)), {}))
    view = y.numpy()
    tensors.rest()
    size = x.untyped_storage().nbytes()
    assert size == 0 and view.sum() == 50
    tensors.fill()
    assert x.sum() == 50
    spilled.close()


def test_parameters_and_their_views_stay():
    model, spilled = nn.Linear(8, 8), Spill(0)
    tensors = LiveTensors(spilled)
    run = stepwise(model, tensors.copied(((torch.ones(2, 8),), {})), behind=[0], around=tensors.noting())
    stop = run.advance()
    tensors.rest()
    sizes = [t.untyped_storage().nbytes() for t in (stop.args[0], stop.out, *model.parameters())]
    assert sizes == [0, 0, 256, 32]
    run.close()
    spilled.close()


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_nothing_is_left_behind(error, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(recovery, "Spill", lambda: Spill(0))
    solve, solved = recovery.solve, []

    def interrupted(*args: object) -> object:
        solved.append(args)
        if error is not None and len(solved) == 2:
            raise error
        return solve(*args)

    monkeypatch.setattr(recovery, "solve", interrupted)
    torch.manual_seed(0)
    model = Mixed().eval()
    if error is None:
        recovered(model, batches(3))
    else:
        with pytest.raises(error):
            recovered(model, batches(3))
    assert len(solved) >= 2 and not list(tmp_path.iterdir())


def test_no_room(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    monkeypatch.setattr(recovery, "Spill", lambda: Spill(0))
    with pytest.raises(InputError, match=r"must fit into .*missing.* \(No such file or directory\); set TMPDIR"):
        recovered(Mixed().eval(), batches(2))
