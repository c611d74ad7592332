"""Results with ultralytics' own API."""

import copy

import numpy as np
import pytest
import torch

import fxprune

# It changes how arrays and tensors are printed, which the doctests of this process rely on.
with np.printoptions():
    ultralytics = pytest.importorskip("ultralytics")
torch.set_printoptions(profile="default")
pytestmark = pytest.mark.slow
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def yolo():
    torch.manual_seed(0)
    yolo = ultralytics.YOLO("yolov8n.yaml", verbose=False)
    yolo.model = fxprune.compress(yolo.model.eval(), torch.randn(1, 3, 64, 64), channels=0.5, form="module")
    return yolo


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_predict_save_and_load(yolo, tmp_path):
    record = fxprune.record(yolo.model)
    assert type(yolo.model).__name__ == "DetectionModel" and record.verification.ok
    assert record.after.params < 0.4 * record.before.params
    assert len(yolo.predict(IMAGE, imgsz=64, verbose=False)) == 1
    yolo.save(tmp_path / "small.pt")
    again = ultralytics.YOLO(tmp_path / "small.pt")
    assert parameters(again.model) == parameters(yolo.model) < 1_100_000
    assert len(again.predict(IMAGE, imgsz=64, verbose=False)) == 1


def test_fused_layers_compute_the_same(yolo):
    small, x = copy.deepcopy(yolo.model).eval(), torch.rand(1, 3, 64, 64)
    wanted = small(x)[0]
    fused = small.fuse(verbose=False)
    assert torch.allclose(fused(x)[0], wanted, rtol=1e-3, atol=1e-3)


def test_blocks_run_as_their_exporter_lets_them(yolo):
    small, x = copy.deepcopy(yolo.model).eval(), torch.rand(1, 3, 64, 64)
    wanted = small(x)[0]
    for block in small.modules():
        if hasattr(block, "forward_split"):
            block.c = block.cv1.conv.out_channels // 2
            block.forward = block.forward_split
    assert torch.allclose(small(x)[0], wanted, rtol=1e-4, atol=1e-4)


def test_onnx(yolo, tmp_path):
    pytest.importorskip("onnx")
    for block in yolo.model.modules():
        if hasattr(block, "forward_split"):
            block.c = block.cv1.conv.out_channels // 2
    yolo.save(tmp_path / "small.pt")
    written = ultralytics.YOLO(tmp_path / "small.pt").export(format="onnx", imgsz=64, verbose=False, simplify=False)
    assert str(written).endswith(".onnx")


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Eight images of one square each, green or red, and their boxes: a data set as their yaml tells it."""
    from PIL import Image

    root, colours = tmp_path_factory.mktemp("squares"), ((0, 255, 0), (255, 0, 0))
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for k in range(8):
            image = np.random.default_rng(k).integers(0, 60, (64, 64, 3), dtype=np.uint8)
            image[16:48, 16:48] = colours[k % 2]
            Image.fromarray(image).save(root / "images" / split / f"{k}.png")
            (root / "labels" / split / f"{k}.txt").write_text(f"{k % 2} 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text(f"path: {root}\ntrain: images/train\nval: images/val\n"
                                    "names: {0: green, 1: red}\n")
    return {"data": str(root / "data.yaml"), "imgsz": 64, "batch": 4, "workers": 0, "plots": False, "verbose": False,
            "device": "cpu", "project": str(root / "runs"), "exist_ok": True}


def test_val_and_train(squares, tmp_path):
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.nn.tasks import DetectionModel

    class Trainer(DetectionTrainer):
        def get_model(self, cfg=None, weights=None, verbose=True):
            return weights

    torch.manual_seed(0)
    small = fxprune.compress(DetectionModel("yolov8n.yaml", nc=2, verbose=False).eval(), torch.randn(1, 3, 64, 64),
                             channels=0.5, form="module")
    count, before = parameters(small), copy.deepcopy(small.state_dict())
    yolo = ultralytics.YOLO("yolov8n.yaml", verbose=False)
    yolo.model = small
    assert 0 <= yolo.val(**squares).box.map <= 1 and parameters(yolo.model) == count
    yolo.save(tmp_path / "small.pt")
    again = ultralytics.YOLO(tmp_path / "small.pt")
    again.train(trainer=Trainer, epochs=1, **squares)
    trained = again.model.state_dict()
    assert parameters(again.model) == count
    assert any(not torch.equal(trained[name].float(), before[name]) for name in trained if name.endswith("conv.weight"))
    best = ultralytics.YOLO(again.trainer.best)
    assert parameters(best.model) == count and len(best.predict(IMAGE, imgsz=64, verbose=False)) == 1
