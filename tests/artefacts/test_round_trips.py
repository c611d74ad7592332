"""What is saved is what is loaded: by the source alone, by the exported program, by the original class and the plan."""

import copy
import importlib.util
import os
import subprocess
import sys

import attention_cases  # noqa: F401
import cnn_cases  # noqa: F401
import movement_cases  # noqa: F401
import pytest
import python_cases  # noqa: F401
import reference
import sequence_cases  # noqa: F401
import torch
from artefact_nets import NETS, call
from cases import CASES
from safetensors.torch import save_file
from test_structures import random_plan

import fxprune
from fxprune.artefacts.exported import close, example_of, exported
from fxprune.artefacts.manifest import FILES, NAME
from fxprune.artefacts.source import check_source, identical, run, source_of
from fxprune.errors import FxpruneError, InputError, UnsupportedError
from fxprune.passes import analysis_of, carry_out
from fxprune.rewrite.folding import Folded
from tests.captioned import Captioned

# What only the user's own code can make, and why.
UNWRITABLE = {
    "autograd_function": "AutogradFunction", "autograd_function_of_a_parameter": "AutogradFunction",
    "custom_operator_without_a_rule": "fxprune_tests",
    "hooks_on_modules": "hooks", "weight_norm_by_hooks": "hooks", "spectral_norm_by_hooks": "hooks",
}
# A few of every kind; all of them are exported in the slow test.
EXPORTED = ("parts_without_gradients", "several_inputs_and_outputs", "keyword_inputs_and_dict_outputs",
            "namedtuple_output", "dataclass_output", "custom_operator_without_a_rule")


def small_case(name):
    case = CASES[name]
    model = case.build()
    reference.randomise(model, 100)
    analysis = analysis_of(model, case.inputs(2), case.policy)
    coupling = analysis.coupling
    if coupling.mode != "graph":
        pytest.skip("module mode")
    return carry_out(Folded(model), analysis, random_plan(coupling, model, 0)), coupling


@pytest.mark.parametrize("name", CASES)
def test_source_of_every_structure(name):
    small, coupling = small_case(name)
    if name in UNWRITABLE:
        with pytest.raises(UnsupportedError, match=UNWRITABLE[name]):
            source_of(small, "title")
        return
    text = source_of(small, "title")
    assert "fxprune" not in text.replace("fxprune: captured", "")
    check_source(text, copy.deepcopy(small), example_of(small, coupling.inputs))


def exported_equals(name):
    small, coupling = small_case(name)
    # Which checks itself, on both batch sizes.
    raw, _ = exported(small.eval(), coupling.inputs)
    assert raw


@pytest.mark.parametrize("name", EXPORTED)
def test_program_of_structures(name):
    exported_equals(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in EXPORTED])
def test_program_of_every_structure(name):
    exported_equals(name)


@pytest.fixture(scope="module", params=NETS)
def saved(request, tmp_path_factory):
    build, inputs = NETS[request.param]
    torch.manual_seed(0)
    model = build()
    reference.randomise(model, 3)
    small = fxprune.compress(model, inputs(2), channels=0.5, verify=False)
    return model, small, inputs, fxprune.save(small, tmp_path_factory.mktemp("artefact") / request.param)


def test_all_files_are_written(saved):
    *_, artefact = saved
    assert not artefact.missing
    assert {path.name for path in artefact.folder.iterdir()} == {*FILES, NAME} == set(artefact.files)
    report = (artefact.folder / "report.md").read_text()
    assert 'in inference mode: `torch.export.load("model.pt2").module()`, any batch size' in report


SCRIPT = """
import importlib.util, sys, torch
sys.modules["fxprune"] = None
torch.set_num_threads(1)
flat = lambda v: [v] if isinstance(v, torch.Tensor) else list(v.values()) if isinstance(v, dict) else list(v)
for folder, example, expected, state in torch.load(sys.argv[1]):
    spec = importlib.util.spec_from_file_location("model", folder + "/model.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    net = module.load()
    assert not net.training and list(net.state_dict()) == list(state)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), state.values()))
    run = lambda: flat(net(**example) if isinstance(example, dict) else net(*example))
    assert all(torch.equal(a, b) for a, b in zip(run(), flat(expected), strict=True)), folder
    net.train()
    sum(out.sum() for out in run()).backward()
"""


def test_source_alone(tmp_path):
    """In a process that has neither fxprune nor the class, equal bit for bit; and it trains."""
    expected = []
    for name, (build, inputs) in NETS.items():
        model = build()
        reference.randomise(model, 3)
        small = fxprune.compress(model, inputs(2), channels=0.5, verify=False).eval()
        artefact, example = fxprune.save(small, tmp_path / name), inputs(3)
        with torch.no_grad():
            expected.append((str(artefact.folder), example, call(small, example), dict(small.state_dict())))
    torch.save(expected, tmp_path / "expected.pt")
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "expected.pt")], check=True, cwd=tmp_path,
                   env={**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"})


def imported(folder):
    spec = importlib.util.spec_from_file_location("model_of_an_artefact", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_source_with_weights_of_another_model(tmp_path):
    build, inputs = NETS["sequential"]
    folders = [fxprune.save(fxprune.compress(build(), inputs(2), channels=share, verify=False), tmp_path / name).folder
               for name, share in (("half", 0.5), ("most", 0.75))]
    other = tmp_path / "other"
    other.mkdir()
    save_file({"0.bias": torch.zeros(4)}, other / "weights.safetensors")
    module = imported(folders[0])
    with pytest.raises(ValueError, match="is not of this model: 0"):
        module.load(folders[1])
    with pytest.raises(ValueError, match=r"is not of this model: \['0.weight', '1.bias'"):
        module.load(other)
    assert not module.load().training


def test_program_of_any_batch(saved):
    _, small, inputs, artefact = saved
    program = fxprune.load(artefact.folder, trust=True)
    assert not any(p.requires_grad for p in program.parameters())
    for batch in (1, 2, 5):
        example = inputs(batch)
        with torch.no_grad():
            ours, theirs = call(small.eval(), example), call(program, example)
        assert torch.utils._pytree.tree_structure(ours) == torch.utils._pytree.tree_structure(theirs)
        assert all(map(close, torch.utils._pytree.tree_leaves(ours), torch.utils._pytree.tree_leaves(theirs)))


def test_original_class(saved):
    model, small, inputs, artefact = saved
    before = reference.fingerprint(model)
    again = fxprune.load(artefact.folder, model=model)
    reference.assert_untouched(before, model)
    assert fxprune.record(again).plan == fxprune.record(small).plan
    assert list(again.state_dict()) == list(small.state_dict())
    example = inputs(3)
    outputs = [run(lambda *a, net=net, **k: call(net, example), ((), {})) for net in (small.eval(), again.eval())]
    assert identical(*outputs)
    again.train()
    assert sum(p.requires_grad for p in again.parameters()) == sum(p.requires_grad for p in small.parameters())


def test_trained_since_and_in_half(tmp_path):
    build, inputs = NETS["residual"]
    small = fxprune.compress(build(), inputs(2), channels=0.5, verify=False)
    optimizer = torch.optim.SGD([p for p in small.parameters() if p.requires_grad], 0.1)
    small.train()(*inputs(4)).sum().backward()
    optimizer.step()
    small.to(torch.bfloat16)
    artefact = fxprune.save(small, tmp_path / "half")
    assert not artefact.missing
    x = inputs(3)[0].bfloat16()
    assert close(fxprune.load(artefact.folder, trust=True)(x), small.eval()(x))
    again = fxprune.load(artefact.folder, model=build())
    assert torch.equal(again.eval()(x), small.eval()(x))


def test_folded_constants(tmp_path):
    build, inputs = NETS["sequential"]
    model = build()
    reference.randomise(model, 1)
    small = fxprune.compress(model, inputs(2), channels=0.5, fold_constants=True)
    artefact = fxprune.save(small, tmp_path / "folded")
    assert not artefact.missing
    x = inputs(3)
    assert torch.equal(fxprune.load(artefact.folder, model=build()).eval()(*x), small.eval()(*x))


def test_module_mode_says_what_is_left_out(tmp_path):
    class Dependent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)

        def forward(self, x):
            y = self.a(x)
            return self.b(y if y.sum().item() > 1e9 else y * 2)

    torch.manual_seed(0)
    small = fxprune.compress(Dependent(), torch.randn(2, 4), channels=0.5)
    assert fxprune.record(small).mode == "module"
    with pytest.warns(UserWarning, match="left out model.py: module mode"):
        artefact = fxprune.save(small, tmp_path / "module")
    assert set(artefact.missing) == {"model.py", "model.pt2"} and "not written: model.py" in repr(artefact)
    assert "no `model.pt2`: module mode" in (artefact.folder / "report.md").read_text()
    with pytest.raises(fxprune.ArtefactError, match="has no model.pt2; its report.md says why"):
        fxprune.load(artefact.folder, trust=True)
    x = torch.randn(3, 4)
    assert torch.equal(fxprune.load(artefact.folder, model=Dependent())(x), small(x))


def test_a_model_for_inference_only(tmp_path):
    """What could not be captured in training mode says so from every file."""
    class Detector(torch.nn.Sequential):
        def forward(self, x, targets=None):
            assert not self.training or targets is not None, "no targets"
            return super().forward(x)

    net = Detector(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    small = fxprune.compress(net, torch.randn(2, 4), channels=0.5)
    artefact = fxprune.save(small, tmp_path / "detector")
    assert not artefact.missing
    x, net = torch.randn(3, 4), imported(artefact.folder).load()
    assert torch.equal(net(x), small(x))
    for module in (net, small):
        with pytest.raises(AssertionError, match="could not be captured in training mode"):
            module.train()(x)


def test_nothing_of_the_machine_is_in_the_files(saved):
    *_, artefact = saved
    here = os.path.dirname(__file__).encode()
    for path in artefact.folder.iterdir():
        if path.name != "report.html":
            assert here not in path.read_bytes(), path.name


def test_a_title_is_words(tmp_path):
    build, inputs = NETS["sequential"]
    small = fxprune.compress(build(), inputs(2), channels=0.5, verify=False)
    artefact = fxprune.save(small, tmp_path / "artefact", title='a """ b\\\nraise SystemExit #')
    assert not artefact.missing
    assert (artefact.folder / "model.py").read_text().startswith('"""a \'\'\' b/ raise SystemExit #"""\n')


def test_saving_changes_nothing(tmp_path):
    build, inputs = NETS["auxiliary"]
    small = fxprune.compress(build().train(), inputs(2), channels=0.5, verify=False)
    before, state = reference.fingerprint(small), torch.get_rng_state()
    fxprune.save(small, tmp_path / "artefact")
    reference.assert_untouched(before, small)
    assert torch.equal(torch.get_rng_state(), state)


def test_save_needs_a_compressed_model(tmp_path):
    with pytest.raises(InputError, match="record needs the module that fxprune.compress"):
        fxprune.save(torch.nn.Linear(2, 2), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_model_that_takes_certain_values_only_is_loaded_with_inputs_that_it_takes(tmp_path):
    torch.manual_seed(0)
    model, tokens = Captioned().eval(), torch.tensor([[1, 39, 2], [39, 4, 5]])
    small = fxprune.compress(model, tokens, channels=0.5)
    fxprune.save(small, tmp_path / "small")
    with pytest.raises(FxpruneError, match="no image token.*takes certain values only, pass example_inputs="):
        fxprune.load(tmp_path / "small", model=model)
    with pytest.raises(FxpruneError, match="takes certain values only, pass example_inputs="):
        fxprune.verify(model, small, fxprune.record(small).plan)
    loaded = fxprune.load(tmp_path / "small", model, tokens)
    assert torch.equal(loaded(tokens), small(tokens))
    assert fxprune.verify(model, small, fxprune.record(small).plan, tokens).ok
