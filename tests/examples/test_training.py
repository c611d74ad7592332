"""The examples' training loop: an interrupted run ends like a straight one, and bad data is refused by name."""

import json

import numpy as np
import pytest
import torch
from cifar10 import MEAN, STD, Draw, Split, augment, load_cifar10, normalise, validation_split
from torch import nn
from training import Config, distillation, evaluate, fit

from fxprune.models import cifar_resnet

CONFIG = Config(epochs=3, batch_size=8, lr=0.05)


class Interruption(Exception):
    pass


class Counter:
    """A state that changes with every step, like a penalty that ramps up."""

    def __init__(self, stop_at=None):
        self.steps = 0
        self.stop_at = stop_at

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]

    def count(self):
        if self.steps == self.stop_at:
            raise Interruption
        self.steps += 1

    def after_step(self, model, lr):
        self.count()
        with torch.no_grad():
            model[0].weight.mul_(1 - lr * self.steps / 1000)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (28, 32, 32, 3), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.randint(0, 10, (28,), generator=generator))
    return validation_split(split, count=8)


def net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, 10)
    )


def trained(data, folder, resume=False, stop_at=None, config=CONFIG):
    model, counter = net(), Counter(stop_at)
    history = fit(
        model, *data, config, folder, resume=resume, state=counter, after_step=counter.after_step, extra_loss=decay
    )
    return model, history, counter


def decay(model):
    return 1e-3 * model[0].weight.square().sum()


def without_time(history):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


@pytest.mark.parametrize("stop_at", [4, 6, 8])
def test_resumed_run_has_the_bits_of_a_straight_one(data, tmp_path, stop_at):
    straight, history, counter = trained(data, tmp_path / "straight")
    with pytest.raises(Interruption):
        trained(data, tmp_path / "resumed", stop_at=stop_at)
    torch.rand(7)  # whatever happened to the global generator in between
    resumed, history_2, counter_2 = trained(data, tmp_path / "resumed", resume=True)
    assert counter.steps == counter_2.steps == 9
    assert without_time(history) == without_time(history_2)
    for (name, ours), theirs in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    logs = [[json.loads(line) for line in (tmp_path / f / "log.jsonl").open()] for f in ("straight", "resumed")]
    assert without_time(logs[0]) == without_time(logs[1]) == without_time(history)


def the_same_interrupted_or_not(data, folder, config, teacher=None):
    """The values that a residual network ends with in ``folder / "straight"``, and does when it is interrupted, too."""
    def run(name, resume=False, after_step=None):
        torch.manual_seed(0)
        model = cifar_resnet(8)
        fit(model, *data, config, folder / name, resume=resume, after_step=after_step, teacher=teacher)
        return model.state_dict()

    calls = Counter(stop_at=5)
    with pytest.raises(Interruption):
        run("resumed", after_step=lambda model, lr: calls.count())
    straight, resumed = run("straight"), run("resumed", resume=True)
    for name, value in straight.items():
        assert torch.equal(value, resumed[name]), name
    return straight


def test_a_residual_network_resumes_in_bfloat16_and_channels_last(data, tmp_path):
    the_same_interrupted_or_not(data, tmp_path, CONFIG)


def test_resuming_a_finished_run_only_loads_it(data, tmp_path):
    first, history, _ = trained(data, tmp_path)
    again, history_2, counter = trained(data, tmp_path, resume=True, stop_at=9)
    assert history == history_2
    assert counter.steps == 9
    assert torch.equal(first[0].weight, again[0].weight)


def test_another_seed_is_another_run(data):
    first, _, _ = trained(data, None)
    other, _, _ = trained(data, None, config=Config(epochs=3, batch_size=8, lr=0.05, seed=1))
    assert not torch.equal(first[0].weight, other[0].weight)


def test_a_run_with_a_teacher_and_an_average_resumes_and_ends_with_the_average(data, tmp_path):
    torch.manual_seed(1)
    config, teacher = Config(epochs=3, batch_size=8, lr=0.05, distil=0.9, ema=0.5), cifar_resnet(8).eval()
    straight = the_same_interrupted_or_not(data, tmp_path, config, teacher)
    saved = torch.load(tmp_path / "straight" / "checkpoint.pt", weights_only=True)
    weight = "layer1.0.conv1.weight"
    assert torch.equal(straight[weight], saved["average"][f"module.{weight}"])
    assert not torch.equal(straight[weight], saved["model"][weight])


def test_an_average_gets_batch_norms_of_its_own(data):
    config = Config(epochs=1, batch_size=8, lr=0.05, ema=0.9, bfloat16=False)
    model = net()
    fit(model, *data, config)
    batches = [normalise(images) for images in data[0].images.split(8)]
    means = torch.stack([model[0](x).detach().mean((0, 2, 3)) for x in batches]).mean(0)
    torch.testing.assert_close(model[1].running_mean, means)


def test_the_loss_is_drawn_towards_the_teacher(data):
    """With nothing but the teacher's outputs the labels do not matter, and who has them already learns nothing."""
    config = Config(epochs=1, batch_size=20, lr=0.1, distil=1.0, weight_decay=0.0, bfloat16=False)
    nets, images = [], data[0].images
    for labels in (data[0].labels, data[0].labels.flip(0)):
        torch.manual_seed(0)
        student, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)) for _ in range(2))
        fit(student, Split(images, labels), data[1], config, teacher=teacher)
        nets.append((student[1].weight, teacher[1].weight))
    assert torch.equal(nets[0][0], nets[1][0])
    before = nets[0][1].detach().clone()
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    student.load_state_dict(teacher.state_dict())
    fit(student, *data, config, teacher=teacher)
    torch.testing.assert_close(student[1].weight, teacher[1].weight, rtol=0, atol=1e-6)
    assert torch.equal(before, nets[0][1])
    with pytest.raises(ValueError, match="distil=1.0 needs a teacher; pass teacher=original"):
        fit(student, *data, config)


def test_distillation_is_its_formula():
    torch.manual_seed(0)
    ours, theirs, T = torch.randn(5, 3), torch.randn(5, 3), 4.0
    p, q = (torch.softmax(outputs / T, dim=1) for outputs in (theirs, ours))
    assert distillation(ours, theirs, T).item() == pytest.approx(T**2 * (p * (p / q).log()).sum(1).mean().item())


@pytest.mark.parametrize("decay_norms", [True, False])
def test_what_decays(data, decay_norms):
    """Without a gradient only decay moves a parameter."""
    config = Config(epochs=1, batch_size=20, lr=0.1, warmup=0.0, weight_decay=0.5, decay_norms=decay_norms)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3072), nn.Linear(3072, 10))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    handles = [p.register_hook(torch.zeros_like) for p in model.parameters()]
    fit(model, *data, config)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert handles and moved == ({"1.weight", "2.weight", "2.bias"} if decay_norms else {"2.weight"})


def test_a_checkpoint_from_before_a_field_is_continued(data, tmp_path):
    """What it does not know was at its default."""
    trained(data, tmp_path)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for later in ("decay_norms", "distil", "temperature", "ema"):
        del saved["config"][later]
    torch.save(saved, tmp_path / "checkpoint.pt")
    trained(data, tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"ema=0.0 there, 0.5 here"):
        trained(data, tmp_path, resume=True, config=Config(epochs=3, batch_size=8, lr=0.05, ema=0.5))


def test_a_run_is_not_overwritten(data, tmp_path):
    trained(data, tmp_path)
    with pytest.raises(FileExistsError, match=r"already holds a run; pass resume=True \(--resume\)"):
        trained(data, tmp_path)


def test_a_run_of_another_configuration_is_not_continued(data, tmp_path):
    trained(data, tmp_path)
    with pytest.raises(ValueError, match=r"lr=0.05 there, 0.1 here"):
        trained(data, tmp_path, resume=True, config=Config(epochs=3, batch_size=8, lr=0.1))


def test_a_loss_that_is_not_finite_leaves_the_last_checkpoint(data, tmp_path):
    with pytest.raises(FloatingPointError, match="not finite"):
        fit(net(), *data, CONFIG, tmp_path, extra_loss=lambda model: model[0].weight.sum() * torch.nan)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"lr": 0.0}, {"warmup": 41.0}, {"batch_size": 0}, {"distil": 1.5},
                                   {"ema": 1.0}])
def test_configurations_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)


def test_augmentation_is_a_crop_of_the_reflected_image_and_a_mirror(data):
    images = data[0].images
    draw = Draw.of(len(images), seed=3, epoch=2)
    got = augment(images, draw, slice(4, 12))
    for row, position in zip(got, range(4, 12), strict=True):
        image = images[draw.order[position]].permute(2, 0, 1).float()[None]
        top, left = int(draw.top[position]) + 4, int(draw.left[position]) + 4
        wanted = nn.functional.pad(image, (4, 4, 4, 4), mode="reflect")[0, :, top : top + 32, left : left + 32]
        wanted = wanted.flip(2) if draw.mirror[position] else wanted
        assert torch.equal(row.permute(2, 0, 1).float(), wanted)


def test_an_epochs_chance_depends_on_seed_and_epoch_alone():
    torch.manual_seed(0)
    first = Draw.of(100, seed=5, epoch=7)
    torch.manual_seed(1)
    same, other = Draw.of(100, seed=5, epoch=7), Draw.of(100, seed=5, epoch=8)
    for field in ("order", "top", "left", "mirror"):
        assert torch.equal(getattr(first, field), getattr(same, field))
        assert not torch.equal(getattr(first, field), getattr(other, field))
    assert sorted(first.order.tolist()) == list(range(100))
    assert first.top.min() == first.left.min() == -4 and first.top.max() == first.left.max() == 4


def test_normalise_keeps_the_images_channels_last():
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    got = normalise(images)
    assert got.is_contiguous(memory_format=torch.channels_last)
    wanted = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(got, wanted)


def test_evaluate_counts_and_restores_the_mode(data):
    images, labels = data[0].images, torch.zeros(20, dtype=torch.int64)
    labels[:5] = 1
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    nn.init.zeros_(model[1].weight)
    model[1].bias.data.copy_(torch.eye(10)[0])
    assert evaluate(model, images, labels, batch_size=7) == 75.0
    assert model.training
    with pytest.raises(ValueError, match="as many labels as images"):
        evaluate(model, images, labels[:3])


def arrays(**changes):
    x, y = np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 9], np.uint8)
    return {"train_x": x, "train_y": y, "test_x": x, "test_y": y} | changes


def test_npz_is_read(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays())
    train, test = load_cifar10(tmp_path / "data.npz")
    assert train.images.shape == (2, 32, 32, 3) and train.images.dtype == torch.uint8
    assert test.labels.tolist() == [0, 9] and test.labels.dtype == torch.int64


def test_torchvision_folder_is_read(tmp_path, monkeypatch):
    class Fake:
        def __init__(self, root, train, download):
            assert (root, download) == (str(tmp_path), False)
            self.data, self.targets = np.zeros((5 if train else 2, 32, 32, 3), np.uint8), [9] * (5 if train else 2)

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fake)
    train, test = load_cifar10(tmp_path)
    assert (len(train), len(test)) == (5, 2)
    assert train.labels.tolist() == [9] * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_x": np.zeros((2, 3, 32, 32), np.uint8)}, r"train: images must be uint8 .* got uint8 \[2, 3, 32, 32\]"),
        ({"test_x": np.zeros((2, 32, 32, 3), np.float32)}, r"test: images must be uint8 .* got float32"),
        ({"test_y": np.zeros(3, np.uint8)}, r"test: labels must be integers \[2\], one an image, got uint8 \[3\]"),
        ({"train_y": np.array([0, 10])}, "labels from 0 to 9"),
        ({"train_y": np.array([0, None])}, "not a readable .npz file: Object arrays cannot be loaded"),
    ],
)
def test_wrong_arrays_are_refused_by_name(tmp_path, changes, message):
    np.savez(tmp_path / "data.npz", **arrays(**changes))
    with pytest.raises(ValueError, match=message):
        load_cifar10(tmp_path / "data.npz")


def test_missing_arrays_are_named(tmp_path):
    np.savez(tmp_path / "data.npz", train_x=arrays()["train_x"])
    with pytest.raises(ValueError, match="missing: train_y, test_x, test_y"):
        load_cifar10(tmp_path / "data.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip at all", b"PK\x03\x04 half a file"])
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"not a readable \.npz file"):
        load_cifar10(tmp_path / "data.npz")


def test_a_single_array_is_not_a_data_set(tmp_path):
    np.save(tmp_path / "data.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"not a readable \.npz file"):
        load_cifar10(tmp_path / "data.npy")


def test_folders_without_the_data_set_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no intact cifar-10-batches-py; name its parent folder, or download"):
        load_cifar10(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"give --data a torchvision folder or a .npz"):
        load_cifar10(tmp_path / "nowhere")
