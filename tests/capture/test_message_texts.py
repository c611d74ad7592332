"""Checks and messages read tensors without deciding anything: a graph asserts the one and does without the other."""

import pytest
import torch
from torch import nn

import fxprune
from fxprune.passes import analysis_of


class Features(nn.Module):
    """Features in place of tokens, counted before they are laid in."""

    def __init__(self, before):
        super().__init__()
        self.table, self.project, self.head = nn.Embedding(20, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        self.before = before

    def forward(self, tokens, features):
        embedded, laid_in = self.table(tokens), self.project(features)
        mask = tokens == 7
        embedded = self.before(embedded, mask, laid_in)
        return self.head(embedded.masked_scatter(mask.unsqueeze(-1), laid_in))


def check(cond, message):
    torch._check_tensor_all(cond, message if callable(message) else lambda: message)


def counted(embedded, mask, features):
    count = mask.sum()
    check(count * embedded.shape[-1] == features.numel(), f"{count} tokens for {features.shape[0]} features")
    return embedded


TOKENS = torch.tensor([[1, 7, 7, 2], [7, 3, 4, 7]])
FEATURES = torch.randn(4, 6)


def compressed(before):
    torch.manual_seed(0)
    return fxprune.compress(Features(before), (TOKENS, FEATURES), channels=0.5)


def test_what_is_counted_before_it_is_laid_in_makes_a_graph():
    small = compressed(counted)
    done = fxprune.record(small)
    assert done.mode == "graph" and done.verification.ok and "train" in str(done.verification.runs)
    assert list(done.plan.widths.values()) == [4]
    assert small(TOKENS, FEATURES).shape == (2, 4, 3)


def test_the_result_checks_what_the_model_does():
    with pytest.raises(AssertionError, match="a check of the model's own holds .* and it fails here"):
        compressed(counted)(TOKENS, FEATURES[:3])


def raised(embedded, mask, features):
    if embedded.dim() != 3:
        raise ValueError(f"{mask.sum()} tokens")
    return embedded


def test_a_check_that_holds_for_every_input_leaves_nothing_behind():
    small = compressed(raised)
    assert not any("check" in str(node.args) for node in small.graph.nodes)


@pytest.mark.parametrize("text", [lambda n: f"{n}", str, repr])
def test_a_text_that_is_no_message_may_decide_on_something(text):
    model = Features(lambda embedded, mask, features: embedded * {"4": 1.0}.get(text(mask.sum()), 2.0)).eval()
    coupling = analysis_of(model, (TOKENS, FEATURES)).coupling
    assert coupling.mode == "module" and "reads a tensor's contents in Python" in coupling.why


def beside(embedded, mask, features):
    check(torch.tensor({"4": True}.get(f"{mask.sum()}", False)), "none")
    return embedded


def test_a_text_within_a_check_counts_only_where_it_is_the_message():
    assert analysis_of(Features(beside).eval(), (TOKENS, FEATURES)).coupling.mode == "module"
