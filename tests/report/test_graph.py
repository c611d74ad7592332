"""The graph's attributes and components, and what explain says."""

import networkx as nx
import pytest
import torch
import torchvision
from report_nets import Branches, Tied, branches

from fxprune import analyze
from fxprune.capture.capturing import capture
from fxprune.errors import InputError


@pytest.fixture(scope="module")
def coupling():
    return branches()


@pytest.fixture(scope="module")
def graph(coupling):
    return coupling.graph


def test_parameter_dimensions_carry_their_facts(graph):
    assert graph.nodes["conv2.weight", 0] == {
        "kind": "parameter", "layer": "conv2", "role": "producer", "groups": ("conv1",), "size": 8}
    assert graph.nodes["head.weight", 1]["groups"] == ("conv1", "conv3")
    assert graph.nodes["head.weight", 1]["role"] == "consumer"
    assert graph.nodes["norm.running_var", 0]["role"] == "carrier"
    assert ("conv1.weight", 2) not in graph, "nothing ties a kernel position"


def test_operators_say_where_they_stand(graph):
    adds = [data for _, data in graph.nodes(data=True) if data.get("op") == "aten::add"]
    assert len(adds) == 1
    assert adds[0]["kind"] == "operator"
    assert adds[0]["node"] == "add"
    assert "report_nets.py:" in adds[0]["source"]


def test_a_linear_layer_does_not_join_its_input_with_its_output(graph):
    assert nx.has_path(graph, ("fc.weight", 0), ("fc.bias", 0))
    assert not nx.has_path(graph, ("fc.weight", 0), ("fc.weight", 1))


def test_concatenated_groups_hang_together_coarsely(graph, coupling):
    assert nx.has_path(graph, ("conv1.weight", 0), ("conv3.weight", 0))
    assert coupling.groups["conv1"] is not coupling.groups["conv3"]


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v3_small", "shufflenet_v2_x0_5", "swin_t"])
def test_every_group_lies_in_one_component(name):
    coupling = analyze(torchvision.models.get_model(name, weights=None))
    component = {node: k for k, nodes in enumerate(nx.connected_components(coupling.graph)) for node in nodes}
    for group in coupling.groups.values():
        assert len({component[m.name, m.dim] for m in group.members}) == 1, group


def test_training_and_evaluation_graphs_are_met_once():
    class Net(Branches):
        def forward(self, x):
            x = super().forward(x)
            return torch.nn.functional.dropout(x, 0.5, self.training) if self.training else x

    two, one = analyze(Net(), torch.zeros(1, 3, 8, 8)).graph, branches().graph
    assert len({t.graph for t in capture(Net(), torch.zeros(1, 3, 8, 8)).traced}) == 2
    assert two.number_of_nodes() == one.number_of_nodes()


def test_explain_gives_the_chain(coupling):
    lines = coupling.explain("conv1", "conv2").splitlines()
    assert lines[0] == "conv1 and conv2 are coupled: both produce all 8 of group 'conv1'"
    assert lines[1].strip() == "conv1.weight[0]"
    assert lines[2].strip().startswith("add  add at ") and "report_nets.py:" in lines[2]
    assert lines[3].strip() == "conv2.weight[0]"


def test_the_chain_in_a_residual_net_goes_block_by_block():
    coupling = analyze(torchvision.models.resnet50())
    text = coupling.explain("layer1.0.conv3", "layer1.2.conv3")
    assert [line.strip().split("  ")[0] for line in text.splitlines()[1:]] == [
        "layer1.0.conv3.weight[0]", "add_", "layer1.1.conv3.weight[0]", "add_", "layer1.2.conv3.weight[0]"]
    assert text.count("torchvision/models/resnet.py:") == 2


def test_explain_producer_and_consumer(coupling):
    expected = "conv1 produces the channels that conv3 reads: all 8 of group 'conv1'"
    assert coupling.explain("conv1", "conv3").splitlines()[0] == expected
    assert coupling.explain("conv3", "conv1").splitlines()[0] == expected


def test_explain_a_carrier_and_parameters(coupling):
    assert coupling.explain("conv2", "norm").startswith("conv2 produces the channels that norm holds: all 8")
    assert "coupled" in coupling.explain("conv1.weight", "conv2.weight")


def test_explain_side_by_side(coupling):
    text = coupling.explain("conv2", "conv3.bias")
    assert text.startswith("nothing couples conv2 and conv3.bias")
    assert "head reads both, side by side" in text


def test_explain_nothing_in_common(coupling):
    assert coupling.explain("conv1", "fc") == \
        "nothing couples conv1 and fc: no channel of one is a channel of the other"


def test_explain_frozen_channels(coupling):
    assert "frozen: model output" in coupling.explain("fc.weight", "fc.bias")


def test_explain_one_layer_and_shared_parameters():
    coupling = analyze(Tied(), torch.zeros(1, 6))
    assert coupling.explain("first", "first") == "first is one layer"
    assert coupling.explain("first", "again") == "first and again share the parameter first.weight, and so its channels"
    assert coupling.explain("again", "out").splitlines()[0].startswith("again")


def test_explain_unknown_names(coupling):
    with pytest.raises(InputError, match=r"unknown layer 'conv9'; did you mean 'conv1', 'conv2', 'conv3'\?"):
        coupling.explain("conv1", "conv9")
    with pytest.raises(InputError, match="'lost' takes no part in the captured run"):
        coupling.explain("lost", "conv1")
    with pytest.raises(InputError, match="unknown layer 3"):
        coupling.explain(3, "conv1")
