"""A compressed model of either form is exported, compiled, traced and copied as any other, and computes the same."""

import copy
import io
import pickle
from itertools import product

import pytest
import torch
from downstream_nets import FORMS, NETS, compressed
from torch import nn

import fxprune


@pytest.fixture(scope="module", params=product(NETS, FORMS), ids="-".join)
def net(request):
    return compressed(*request.param)


def same(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_export_and_reload(net):
    small, x = net
    program = torch.export.export(small, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    again = torch.export.load(buffer).module()
    for batch in (2, 4, 7):
        inputs = torch.randn(batch, *x.shape[1:])
        same(again(inputs), small(inputs))


def test_onnx(net, tmp_path):
    """Through the exporter that builds on torch.export, run by onnxruntime at other batch sizes."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    small, x = net
    path = tmp_path / "small.onnx"
    torch.onnx.export(small, (x,), path, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 4, 6):
        inputs = torch.randn(batch, *x.shape[1:])
        (out,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
        same(torch.from_numpy(out), small(inputs).detach(), 1e-4)


def test_compile(net):
    small, x = net
    # The same capture and guards as any backend's; the default one needs a C++ compiler.
    fast = torch.compile(copy.deepcopy(small), backend="aot_eager")
    same(fast(x), small(x))
    same(fast(x[:2]), small(x[:2]))
    loss = fast.train()(x).square().mean()
    loss.backward()
    reference = copy.deepcopy(small).train()
    same(loss, reference(x).square().mean())


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_compile_with_inductor(net):
    small, x = net
    same(torch.compile(copy.deepcopy(small))(x), small(x), 1e-4)


@pytest.mark.filterwarnings("ignore")
def test_jit_trace(net):
    small, x = net
    traced = torch.jit.trace(small, x, check_trace=False)
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    again = torch.jit.load(buffer)
    same(again(x), small(x))
    if isinstance(small.get_submodule("head"), nn.Linear) and hasattr(small, "stem"):
        same(again(x[:2]), small(x[:2]))


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies(net, way):
    small, x = net
    again = way(small)
    assert torch.equal(again(x), small(x)) and list(again.state_dict()) == list(small.state_dict())
    assert fxprune.record(again).plan == fxprune.record(small).plan
    with torch.no_grad():
        next(again.parameters()).add_(1)
    assert not torch.equal(next(again.parameters()), next(small.parameters()))
    again.train()
    assert not small.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(net, dtype):
    small, x = net
    out = copy.deepcopy(small).to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    same(out.float(), small(x), 0.05)


def test_autocast(net):
    small, x = net
    with torch.autocast("cpu", torch.bfloat16):
        out = small(x)
    same(out.float(), small(x), 0.1)


def test_channels_last():
    small, x = compressed("convolutional")
    again = copy.deepcopy(small).to(memory_format=torch.channels_last)
    assert again.get_parameter("stem.weight").is_contiguous(memory_format=torch.channels_last)
    same(again(x.to(memory_format=torch.channels_last)), small(x))


def test_another_device(net):
    """On the meta device, which every machine has: no tensor stays behind."""
    small, x = net
    again = copy.deepcopy(small).to("meta")
    out = again(x.to("meta"))
    assert out.is_meta and out.shape == small(x).shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu(net):
    small, x = net
    same(copy.deepcopy(small).cuda()(x.cuda()).cpu(), small(x), 1e-3)


def test_quantised_after_training(net):
    """Dynamic quantisation of the linear layers, where the installed torch still has it."""
    quantise = getattr(getattr(torch.ao, "quantization", None), "quantize_dynamic", None)
    if quantise is None:
        pytest.skip("torch.ao.quantization.quantize_dynamic is not in this torch")
    if not {"fbgemm", "x86", "onednn", "qnnpack"} & set(torch.backends.quantized.supported_engines):
        pytest.skip("no quantised kernels on this machine")
    small, x = net
    quantised = quantise(copy.deepcopy(small), {nn.Linear}, dtype=torch.qint8)
    assert type(quantised.get_submodule("head")) is not nn.Linear
    same(quantised(x), small(x), 0.1)


def test_quantised_by_torchao(net):
    quantisation = pytest.importorskip("torchao.quantization")
    small, x = net
    again = copy.deepcopy(small)
    quantisation.quantize_(again, quantisation.Int8WeightOnlyConfig())
    same(again(x), small(x), 0.1)
