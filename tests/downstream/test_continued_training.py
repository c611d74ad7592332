"""A compressed model goes on training: plainly, and in the loops of Lightning, Accelerate and transformers."""

import copy
import sys

import pytest
import torch
from downstream_nets import FORMS, NETS, compressed
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune import DWGL, InputError
from fxprune.errors import MissingExtraError
from fxprune.training.accelerate import Proximal
from fxprune.training.lightning import ProximalCallback


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
                                  lambda p: torch.optim.AdamW(p, 0.01)], ids=["SGD", "AdamW"])
def test_training_goes_on(name, make, form):
    small, x = compressed(name, form)
    small.train()
    labels = torch.arange(len(x)) % 3
    optimizer, losses = make(small.parameters()), []
    before = {key: p.detach().clone() for key, p in small.named_parameters()}
    for _ in range(30):
        loss = F.cross_entropy(small(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    # What stands before a normalisation may have no gradient but zero.
    assert sum(not torch.equal(p, before[key]) for key, p in small.named_parameters()) > len(before) / 2
    assert all(p.grad is not None for p in small.parameters())


def penalised():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    return model, DWGL(fxprune.analyze(model, torch.zeros(1, 4)), strength=0.3, direction=(0.5, 2))


def data():
    torch.manual_seed(1)
    x = torch.randn(64, 4)
    return torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())


def zeros(model):
    return int((model[0].weight.norm(dim=1) == 0).sum())


def test_plain_loop_reaches_zeros():
    """What the loops of others must come to as well."""
    model, penalty = penalised()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for x, y in torch.utils.data.DataLoader(data(), 8):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        penalty.proximal_(model, 0.1)
    assert zeros(model) > 0


@pytest.mark.filterwarnings("ignore")
def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")
    model, penalty = penalised()
    plain = copy.deepcopy(model)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = model

        def training_step(self, batch, _):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), 0.1)

    def trainer(callback, **options):
        return lightning.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
                                 enable_model_summary=False, default_root_dir=tmp_path, callbacks=[callback], **options)

    callback = ProximalCallback(penalty, "net")
    run = trainer(callback, enable_checkpointing=False, accumulate_grad_batches=2)
    run.fit(Module(), torch.utils.data.DataLoader(data(), 8))
    assert run.global_step == 4 and penalty.progress.steps == 4
    # The same by hand, with gradients of two batches.
    optimizer, other = torch.optim.SGD(plain.parameters(), 0.1), penalised()[1]
    for k, (x, y) in enumerate(torch.utils.data.DataLoader(data(), 8)):
        (F.cross_entropy(plain(x), y) / 2).backward()
        if k % 2:
            optimizer.step()
            optimizer.zero_grad()
            other.proximal_(plain, 0.1)
    assert all(torch.allclose(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    run.save_checkpoint(tmp_path / "checkpoint.ckpt")
    fresh = penalised()[1]
    states = torch.load(tmp_path / "checkpoint.ckpt", weights_only=True)["callbacks"]
    ProximalCallback(fresh).load_state_dict(next(iter(states.values())))
    assert fresh.state_dict() == penalty.state_dict()
    small = fxprune.compress(model, torch.zeros(1, 4), channels=0.5)
    assert small(torch.zeros(3, 4)).shape == (3, 2)


def test_accelerate(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model, penalty = penalised()
    plain = copy.deepcopy(model)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    prepared, optimizer, loader = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), 0.1), torch.utils.data.DataLoader(data(), 8))
    proximal = Proximal(penalty, accelerator, optimizer, prepared)
    for x, y in loader:
        with accelerator.accumulate(prepared):
            accelerator.backward(F.cross_entropy(prepared(x), y))
            optimizer.step()
            proximal()
            optimizer.zero_grad()
    assert penalty.progress.steps == 4
    by_hand, other = torch.optim.SGD(plain.parameters(), 0.1), penalised()[1]
    for k, (x, y) in enumerate(torch.utils.data.DataLoader(data(), 8)):
        (F.cross_entropy(plain(x), y) / 2).backward()
        if k % 2:
            by_hand.step()
            by_hand.zero_grad()
            other.proximal_(plain, 0.1)
    assert all(torch.allclose(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    accelerator.save_state(str(tmp_path / "state"))
    before = penalty.state_dict()
    penalty.step(model)
    accelerator.load_state(str(tmp_path / "state"))
    assert penalty.state_dict() == before
    with pytest.raises(InputError, match="accelerator must be an accelerate.Accelerator, got int"):
        Proximal(penalty, 3, optimizer, prepared)


def test_transformers_trainer(tmp_path):
    """Interrupted and resumed, the Trainer's run ends with the weights and the penalty of one that was not."""
    pytest.importorskip("transformers")
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

    from fxprune.training.trainer import STATE
    from fxprune.training.trainer import ProximalCallback as TrainerProximal

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 8

    def run(folder, resume=None, more=()):
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                                         intermediate_size=32, vocab_size=20, num_labels=2))
        coupling = fxprune.analyze(model, {"input_ids": torch.zeros(2, 6, dtype=torch.int64)})
        penalty = DWGL.towards(coupling, macs=0.6, steps=20)
        words = torch.randint(0, 20, (64, 6), generator=torch.Generator().manual_seed(0))
        settings = TrainingArguments(str(folder), max_steps=24, per_device_train_batch_size=4,
                                     gradient_accumulation_steps=2, save_strategy="steps", save_steps=8, use_cpu=True,
                                     report_to=[], logging_strategy="no", disable_tqdm=True, seed=0)
        trainer = Trainer(model, settings, callbacks=[TrainerProximal(penalty), *more],
                          train_dataset=[{"input_ids": row, "labels": row[0] % 2} for row in words])
        trainer.train(resume_from_checkpoint=resume)
        return model, penalty

    whole, one = run(tmp_path / "whole")
    assert one.progress.steps == 24 and one.progress.released
    run(tmp_path / "twice", more=[Stop()])
    resumed, other = run(tmp_path / "twice", str(tmp_path / "twice" / "checkpoint-8"))
    assert other.state_dict() == one.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    (tmp_path / "twice" / "checkpoint-8" / STATE).unlink()
    with pytest.raises(InputError, match=r"resumed at step 8, whose checkpoint holds no state of a penalty"):
        run(tmp_path / "twice", str(tmp_path / "twice" / "checkpoint-8"))
    with pytest.raises(InputError, match=r"penalty must be a fxprune.DWGL, got int"):
        TrainerProximal(3)


def test_missing_extras(monkeypatch):
    from fxprune.training import lightning

    _, penalty = penalised()
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fxprune\[accelerate\]'"):
        Proximal(penalty, None, None, None)
    if lightning.Callback is object:
        with pytest.raises(MissingExtraError, match=r"pip install 'fxprune\[lightning\]'"):
            ProximalCallback(penalty)
    else:
        with pytest.raises(InputError, match=r"penalty must be a fxprune.DWGL, got int"):
            ProximalCallback(3)
