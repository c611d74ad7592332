"""Data that is split over ranks: the statistics of all parts, the same bits on every rank, and no rank left waiting."""

import time

import pytest
import torch
import torch.distributed as dist
from processes import run
from torch import nn

import fxprune
from fxprune import InputError, SplitData
from fxprune.planning.scoring import as_data
from fxprune.planning.split_data import Alone, Ranks
from fxprune.planning.statistics import gather

# Inputs, pooled means, gradients, Gram matrices.
CRITERIA = ("activation", "entropy", "taylor", "obs")
# Batches of each rank: uneven, and not in equal sizes.
PARTS = ([5, 3], [4], [2, 2, 6])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.a(x)))
        return self.head((x + self.b(x)).mean((2, 3)))


def net():
    torch.manual_seed(0)
    return Net().eval()


def part(rank):
    generator = torch.Generator().manual_seed(rank)
    return [(torch.randn(n, 3, 6, 6, generator=generator), torch.randint(0, 4, (n,), generator=generator))
            for n in PARTS[rank]]


def everything(world):
    return [batch for rank in range(world) for batch in part(rank)]


def results(data):
    """Scores by all kinds of statistics, and the weights after recovery."""
    model, example = net(), torch.zeros(1, 3, 6, 6)
    coupling = fxprune.analyze(model, example)
    scores = {name: {group: torch.from_numpy(row) for group, row in
                     fxprune.score(coupling, model, name, data).items()} for name in CRITERIA}
    weights, samples = {}, 0
    for method in ("least_squares", "obs", "statistics"):
        small = fxprune.compress(model, example, channels=0.5, recover=method, data=data, verify=False)
        weights[method] = {name: tensor.detach() for name, tensor in small.state_dict().items()}
        samples = fxprune.record(small).recovery.samples
    return scores, weights, samples


def curvature(data):
    coupling = fxprune.analyze(net(), torch.zeros(1, 3, 6, 6))
    return gather(coupling, net(), coupling.prunable, as_data(data), ["curvature"]).curvature


def of_one_rank(rank, world):
    return *results(SplitData(part(rank))), curvature(SplitData(part(rank)))


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_all_ranks_have_the_statistics_of_all_parts(world, tmp_path):
    found = run(world, of_one_rank, tmp_path)
    for other in found[1:]:
        for mine, theirs in zip(found[0][:2], other[:2], strict=True):
            assert all(torch.equal(mine[kind][name], theirs[kind][name]) for kind in mine for name in mine[kind])
    scores, weights, samples = results(everything(world))
    assert found[0][2] == samples == sum(sum(PARTS[rank]) for rank in range(world))
    for name in CRITERIA:
        for group, expected in scores[name].items():
            torch.testing.assert_close(found[0][0][name][group], expected, rtol=1e-6, atol=1e-9)
    # Every rank draws its directions from the beginning: the mean over batches of what the parts give alone.
    alone = [(len(PARTS[rank]), curvature(part(rank))) for rank in range(world)]
    for name, value in found[0][3].items():
        expected = sum(n * own[name] for n, own in alone) / sum(n for n, _ in alone)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)
    for method, state in weights.items():
        for name, expected in state.items():
            torch.testing.assert_close(found[0][1][method][name], expected, rtol=1e-4, atol=1e-5)


def with_trouble(rank, world):
    """What is said where rank 1 has no batch, one that is not finite, or one that the model does not take."""
    said = []
    for trouble in ([], [torch.full((2, 3, 6, 6), torch.nan)], [torch.zeros(2, 5, 6, 6)]):
        data = SplitData(trouble if rank == 1 else part(rank))
        for call in (lambda data=data: fxprune.score(fxprune.analyze(net(), torch.zeros(1, 3, 6, 6)), net(),
                                                     "activation", data),
                     lambda data=data: fxprune.compress(net(), torch.zeros(1, 3, 6, 6), channels=0.5, data=data,
                                                        recover="least_squares", verify=False)):
            try:
                call()
                said.append("nothing")
            except InputError as error:
                said.append(str(error))
    return said


@pytest.mark.slow
def test_the_error_of_one_rank_is_raised_on_all(tmp_path):
    here, there = run(2, with_trouble, tmp_path)
    for mine, theirs, words in zip(here, there, ["at least one batch"] * 2 + ["must be finite"] * 2
                                   + ["must run on the data"] * 2, strict=True):
        assert words in theirs and not theirs.startswith("rank")
        assert mine.startswith("rank 1 of those that share the data stopped with InputError: ") and words in mine


def test_samples_bound_all_parts_together(tmp_path):
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:
        split = SplitData([torch.zeros(1)])
        assert split.share(10) == 10 and split.share(None) is None
        ranks = Ranks(split.group)
        assert ranks.each(lambda: 3) == [3] and ranks.here(lambda: "x") == "x"
        with pytest.raises(ZeroDivisionError):
            ranks.each(lambda: 1 / 0)
    finally:
        # gloo's thread lets go of what it gathered only with the interpreter's lock, and torch holds that lock while it
        # waits for the thread to end: seen to hang once, with torch 2.6.
        time.sleep(0.2)
        dist.destroy_process_group()
    assert Alone().each(lambda: 3) == [3] and Alone().here(lambda: 4) == 4


def test_without_a_process_group():
    with pytest.raises(InputError, match=r"init_process_group first, or pass the data as it is"):
        SplitData([torch.zeros(1)])
