"""Layers of a captured model: what is executed as one, which lengths it has, and that it runs alone at any widths."""

import numpy as np
import torch
from latency_nets import Mixed, Residual  # type: ignore[import-not-found]
from torch import nn

import fxprune
from fxprune.latency.layers import Length, layers_of


def layers(model, *shape, **options):
    coupling = fxprune.analyze(model.eval(), torch.randn(*shape), **options)
    return coupling, layers_of(coupling)


def ops(layer):
    return [step.op.removeprefix("aten::") for step in layer.program.steps]


def test_a_convolution_with_what_only_it_feeds_is_one_layer():
    coupling, found = layers(Residual(), 1, 3, 8, 8)
    assert [ops(layer) for layer in found.layers] == [
        ["conv2d", "batch_norm", "relu"],
        *[["conv2d", "batch_norm", "relu"], ["conv2d", "batch_norm", "add", "relu"]] * 2,
        ["mean"], ["linear"]]
    assert found.unpriced == {}
    names = list(coupling.groups)
    stem, inner = names.index("stem"), names.index("blocks.0.conv1")
    assert found.layers[1].axes == (Length(0, ((stem, 1),)), Length(0, ((inner, 1),)))
    assert found.layers[1].full == (16, 24) and found.layers[1].groups == (stem, inner)
    # What is frozen is no axis: the stem reads the image, the classifier's outputs are the model's.
    assert [layer.full for layer in (found.layers[0], found.layers[-1])] == [(16,), (16,)]


def test_likes_have_one_key():
    _, found = layers(Residual(), 1, 3, 8, 8)
    keys = [layer.program.key(layer.full) for layer in found.layers]
    assert keys[1] == keys[3] and keys[2] == keys[4] and len(set(keys)) == 5
    assert keys[1] == "conv2d(1x16x8x8, 24x16x3x3, None, [1, 1], [1, 1]) " \
                      "batch_norm(24, 24, 24, 24, False, 0.1, 1e-05, True) relu()"
    assert found.layers[1].program.key((8, 12)).startswith("conv2d(1x8x8x8, 12x8x3x3, None")


def test_sizes_that_operators_are_told_follow_the_widths():
    coupling, found = layers(Mixed(), 2, 3, 4, 4)
    assert found.unpriced == {}
    by_op = {ops(layer)[0]: layer for layer in found.layers}
    assert set(by_op) == {"conv2d", "cat", "conv_transpose2d", "layer_norm", "adaptive_avg_pool2d", "linear"}
    keys = {layer.name: layer.program.key(layer.full) for layer in found.layers}
    assert keys["deep"].startswith("conv2d(2x24x4x4, 24x1x3x3, 24, [1, 1], [1, 1], [1, 1], 24) relu")
    # Narrower: a depthwise convolution has fewer groups, one with positions cut in every group has as many.
    deep, grouped = (next(layer for layer in found.layers if layer.name == name) for name in ("deep", "grouped"))
    plan = fxprune.plan(coupling, Mixed(), channels=0.5)
    widths = np.array([len(plan.groups[n].kept) if n in plan.groups else g.size for n, g in coupling.groups.items()])
    assert ", 12) relu" in deep.program.key(deep.lengths(widths))
    assert "conv2d(2x12x4x4, 16x3x3x3, 16, [1, 1], [1, 1], [1, 1], 4)" in grouped.program.key(grouped.lengths(widths))
    # A linear layer behind a flatten reads four indices for each channel.
    assert by_op["linear"].axes[0].grain == 4 and by_op["linear"].full == (48,)


def test_layers_run_at_the_widths_of_an_emitted_module_and_give_its_shapes():
    model, x = Mixed(), torch.randn(2, 3, 4, 4)
    coupling, found = layers(model, 2, 3, 4, 4)
    small = fxprune.compress(model, x, channels=0.5)
    kept = fxprune.record(small).plan.widths
    widths = np.array([kept.get(name, group.size) for name, group in coupling.groups.items()])
    shapes = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, node):
            shapes[node.name] = super().run_node(node)
            return shapes[node.name]

    Watch(small.eval()).run(x)
    for layer in found.layers:
        module, (inputs, _) = layer.program.module(layer.lengths(widths), fxprune.Target())
        out = module(*inputs)
        assert out.isfinite().all()
        if len(layer.program.steps) == 1:
            assert out.shape == shapes[layer.name].shape, layer.name


def test_what_cannot_be_run_alone_is_named_and_what_only_looks_is_left_out():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            y = self.a(x).permute(0, 2, 3, 1)
            return self.b(y.contiguous().view(1, 16, 8).transpose(1, 2).reshape(1, 8, 4, 4))

    _, found = layers(Net(), 1, 3, 4, 4)
    assert found.layers[0].name == "a"
    assert not any("permute" in step for layer in found.layers for step in ops(layer))
    assert all(reason for reason in found.unpriced.values())


def test_a_tensor_that_is_written_in_place_is_another_value_from_there_on():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            y = self.a(x)
            return self.b(y.relu_().add_(1)) + self.b(y)

    _, found = layers(Net(), 1, 3, 4, 4)
    assert ops(found.layers[0]) == ["conv2d", "relu_", "add_"]
