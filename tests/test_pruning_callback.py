"""Pruning while Lightning trains: the model is replaced, optimizers and schedulers go on, a checkpoint is resumed."""

import pytest
import torch
from torch import nn

import fxprune
from fxprune.errors import ArtefactError, InputError

lightning = pytest.importorskip("lightning.pytorch")
from fxprune.pruning_callback import PruningCallback  # noqa: E402

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 2))
        self.losses = []

    def training_step(self, batch, index):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.2, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)]


def trained(module, callback, epochs, path, **options):
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
    trainer = lightning.Trainer(max_epochs=epochs, callbacks=[callback], logger=False, enable_progress_bar=False,
                                enable_model_summary=False, default_root_dir=path, accelerator="cpu")
    trainer.fit(module, data, **options)
    return trainer


def callback(**options):
    steps = fxprune.schedule(0.4, steps=2)
    return PruningCallback({2: steps[0], 4: steps[1]}, "net", X[:2], **options)


@pytest.mark.filterwarnings("ignore")
def test_it_prunes_at_its_epochs_and_the_training_goes_on(tmp_path):
    module, pruning = Module(), callback(min_channels=2)
    original = module.net
    trainer = trained(module, pruning, 6, tmp_path)
    record = fxprune.record(module.net)
    assert record.overall.steps == 2 and record.overall.after.macs <= 0.4 * record.overall.before.macs
    assert record.overall.before.macs == 2 * (6 * 24 + 24 * 16 + 16 * 2) and pruning.plan == record.overall.plan
    optimizer, = trainer.strategy.optimizers
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == set(map(id, module.parameters()))
    assert all(optimizer.state[p]["momentum_buffer"].shape == p.shape for p in module.parameters())
    assert trainer.lr_scheduler_configs[0].scheduler.optimizer is optimizer
    assert optimizer.param_groups[0]["lr"] < 0.001
    assert module.losses[-1] < module.losses[0] and original[0].out_features == 24


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_is_resumed_with_the_same_numbers(tmp_path):
    straight = Module()
    trained(straight, callback(), 6, tmp_path)
    first = Module()
    trained(first, callback(), 4, tmp_path).save_checkpoint(tmp_path / "half.ckpt")
    resumed, pruning = Module(), callback()
    pruning.restore(resumed, tmp_path / "half.ckpt")
    assert resumed.net.get_submodule("0").out_features < 24
    trained(resumed, pruning, 6, tmp_path, ckpt_path=tmp_path / "half.ckpt")
    ours, theirs = resumed.state_dict(), straight.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])
    assert fxprune.record(resumed.net).overall.before == fxprune.record(straight.net).overall.before


def test_bad_input_is_refused(tmp_path):
    for arguments, message in ((({}, "net"), "kept must map epochs to fractions"), (([0.5], "net"), "kept must map"),
                               (({1: 0.5}, ""), "attribute must name the model")):
        with pytest.raises(InputError, match=message):
            PruningCallback(*arguments)
    with pytest.raises(InputError, match="cost must be 'macs' or 'params', got 'channels'"):
        PruningCallback({1: 0.5}, "net", cost="channels")
    torch.save({"callbacks": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ArtefactError, match="holds no state of one"):
        callback().restore(Module(), tmp_path / "other.ckpt")
    pruning = callback()
    pruning.why = "no one plan"
    torch.save({"callbacks": {pruning.state_key: pruning.state_dict()}}, tmp_path / "apart.ckpt")
    with pytest.raises(ArtefactError, match="that no one plan leads to: no one plan"):
        callback().restore(Module(), tmp_path / "apart.ckpt")


@pytest.mark.filterwarnings("ignore")
def test_several_processes_are_refused(tmp_path, monkeypatch):
    class Trainer:
        current_epoch, world_size = 2, 2

    with pytest.raises(fxprune.UnsupportedError, match="end fit\\(\\), compress, and fit\\(\\) again"):
        callback().on_train_epoch_start(Trainer(), Module())
