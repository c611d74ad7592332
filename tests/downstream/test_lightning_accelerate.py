"""A whole LightningModule is compressed and keeps its class, and Accelerate's states hold results."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fxprune

pl = pytest.importorskip("lightning.pytorch")
X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(64) % 3
FORMS = ["graph", "module"]


def loader():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), 16)


class Classifier(pl.LightningModule):
    def __init__(self, width=32):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                                 nn.Linear(width, 3))
        self.example_input_array, self.epochs = X[:2], 0

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))

    def predict_step(self, batch, _):
        return self(batch[0]).argmax(1)

    def on_train_epoch_end(self):
        self.epochs += 1

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


class Small(Classifier):
    """As the page shows: the plan is carried out in the constructor."""

    def __init__(self, width=32, plan=""):
        super().__init__(width)
        self.save_hyperparameters()
        self.net = fxprune.apply(Classifier(width), fxprune.Plan.load(plan), weights="any", form="module",
                                 verify=False).net


def compressed():
    torch.manual_seed(0)
    return fxprune.compress(Classifier(), X[:2], channels=0.5, form="module")


def trainer(folder, **options):
    return pl.Trainer(**{"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
                         "enable_model_summary": False, "default_root_dir": folder, "enable_checkpointing": False,
                         **options})


@pytest.mark.filterwarnings("ignore")
def test_a_lightning_module_is_fitted_tested_and_loaded(tmp_path):
    small = compressed()
    assert type(small) is Classifier and small.net[0].out_features == 16 and small.hparams.width == 32
    before = F.cross_entropy(small(X), Y).item()
    run = trainer(tmp_path)
    run.fit(small, loader(), loader())
    assert small.epochs == 2 and run.global_step == 8 and F.cross_entropy(small(X), Y).item() < before
    assert run.validate(small, loader(), verbose=False)[0]["loss"] == pytest.approx(F.cross_entropy(small(X), Y).item())
    small.eval()
    assert torch.equal(torch.cat(run.predict(small, loader())), small(X).argmax(1))

    path, plan = tmp_path / "small.ckpt", tmp_path / "plan.json"
    run.save_checkpoint(path)
    fxprune.record(small).plan.save(plan)
    again = fxprune.apply(Classifier(), fxprune.Plan.load(plan), weights="any", form="module", verify=False)
    again.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    assert type(again) is Classifier and torch.equal(again.eval()(X), small(X))
    loaded = Small.load_from_checkpoint(path, plan=str(plan))
    assert torch.equal(loaded.eval()(X), small(X))
    with pytest.raises(RuntimeError, match="size mismatch for net.0.weight"):
        Classifier.load_from_checkpoint(path)


@pytest.mark.filterwarnings("ignore")
def test_a_run_is_resumed_where_it_stopped(tmp_path):
    whole = compressed()
    trainer(tmp_path, max_epochs=4).fit(whole, loader())
    first = compressed()
    run = trainer(tmp_path)
    run.fit(first, loader())
    run.save_checkpoint(tmp_path / "half.ckpt")
    fxprune.record(first).plan.save(tmp_path / "plan.json")
    second = Small(plan=str(tmp_path / "plan.json"))
    trainer(tmp_path, max_epochs=4).fit(second, loader(), ckpt_path=tmp_path / "half.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_states_of_accelerate(form, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    small = fxprune.compress(model, X[:2], channels=0.5, form=form)
    fresh = copy.deepcopy(small)
    accelerator = accelerate.Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(small, torch.optim.AdamW(small.parameters(), 1e-2))

    def step(net, opt, by):
        opt.zero_grad()
        by.backward(F.cross_entropy(net(X), Y))
        opt.step()

    step(prepared, optimizer, accelerator)
    accelerator.save_state(str(tmp_path / "state"))
    step(prepared, optimizer, accelerator)
    wanted = prepared(X).detach()

    other = accelerate.Accelerator(cpu=True)
    again, resumed = other.prepare(fresh, torch.optim.AdamW(fresh.parameters(), 1e-2))
    other.load_state(str(tmp_path / "state"))
    step(again, resumed, other)
    assert torch.equal(again(X), wanted)
    unwrapped = other.unwrap_model(again)
    assert unwrapped is fresh and fxprune.record(unwrapped).plan == fxprune.record(small).plan
