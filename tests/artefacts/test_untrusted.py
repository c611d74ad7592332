"""Files that somebody tampered with are refused, with words, and before anything in them runs."""

import io
import json
import os
import pickle
import re
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from artefact_nets import NETS

import fxprune
from fxprune.artefacts import archive
from fxprune.artefacts.archive import checked, packed
from fxprune.artefacts.program import check_guard, checked_program
from fxprune.errors import ArtefactError, FxpruneError, InputError, PlanError

PROGRAM, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


class Evil:
    """Unpickled, it leaves a trace."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    torch.manual_seed(0)
    build, inputs = NETS["sequential"]
    model = build()
    small = fxprune.compress(model, inputs(2), channels=0.5, verify=False)
    return model, fxprune.save(small, tmp_path_factory.mktemp("original") / "artefact").folder


@pytest.fixture
def artefact(original, tmp_path):
    """A copy to tamper with."""
    return shutil.copytree(original[1], tmp_path / "artefact")


def refused(folder, message, model=None):
    with pytest.raises(ArtefactError, match=message):
        fxprune.load(folder, model=model)


# -- the archive ----------------------------------------------------------------------------------------------------


def members(folder):
    with zipfile.ZipFile(folder / "model.pt2") as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


def write(folder, contents, compression=zipfile.ZIP_STORED, root="package/"):
    with zipfile.ZipFile(folder / "model.pt2", "w", compression) as file:
        for name, content in contents.items():
            file.writestr(root + name, content)


def edited(folder, member, change):
    """Change a JSON member in place."""
    contents = members(folder)
    document = json.loads(contents[member])
    change(document)
    contents[member] = json.dumps(document).encode()
    write(folder, contents)


def test_the_untouched_archive_loads_after_being_written_anew(artefact):
    write(artefact, members(artefact))
    assert fxprune.load(artefact)(torch.randn(3, 3, 8, 8)).shape == (3, 4)


@pytest.mark.parametrize("name", ["data/aotinductor/model/wrapper.so", "data/weights/model.pt", "extra/notes.txt",
                                  "data/constants/custom_obj_0", "data/constants/opaque_obj_0", "../escape",
                                  "data/weights/../../x", "code/run.py", "models/other.json"])
def test_members_that_are_not_needed(artefact, name):
    write(artefact, {**members(artefact), name: b"x"})
    refused(artefact, "not trusted: it has a member")


def test_members_of_two_folders(artefact):
    with zipfile.ZipFile(artefact / "model.pt2", "a") as file:
        file.writestr("other/byteorder", b"little")
    refused(artefact, "must lie in one folder")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicated_members(artefact):
    with zipfile.ZipFile(artefact / "model.pt2", "a") as file:
        file.writestr(file.namelist()[0], b"x")
    refused(artefact, "two members of one name")


def test_a_zip_bomb(artefact):
    write(artefact, {**members(artefact), "data/weights/weight_99": bytes(2 ** 20)}, zipfile.ZIP_DEFLATED)
    refused(artefact, "compressed or encrypted")


@pytest.mark.parametrize("keep", [0, 10, 1000, -1, -100])
def test_a_truncated_archive(artefact, keep):
    raw = (artefact / "model.pt2").read_bytes()
    (artefact / "model.pt2").write_bytes(raw[:keep])
    refused(artefact, "damaged file: model.pt2 is no whole archive")


def test_flipped_bytes_never_load_unnoticed(artefact):
    """The checksum of the archive sees them, or the checks do."""
    raw, x = (artefact / "model.pt2").read_bytes(), torch.ones(2, 3, 8, 8)
    expected = fxprune.load(artefact)(x)
    for place in range(0, len(raw), len(raw) // 60):
        (artefact / "model.pt2").write_bytes(raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1:])
        try:
            out = fxprune.load(artefact)(x)
        except FxpruneError:
            continue
        assert torch.equal(out, expected), place


def test_sample_inputs_are_never_unpickled(artefact, tmp_path):
    """Where they cannot be read as weights only, torch would read them in full."""
    trace = tmp_path / "trace"
    evil = io.BytesIO()
    torch.save((Evil(str(trace)),), evil)
    write(artefact, {**members(artefact), "data/sample_inputs/model.pt": evil.getvalue()})
    fxprune.load(artefact)
    write(artefact, {**members(artefact), "data/sample_inputs/model.pt": pickle.dumps(Evil(str(trace)))})
    fxprune.load(artefact)
    assert not trace.exists()


def test_too_much_of_everything(artefact, monkeypatch):
    for limit, message in (("MEMBERS", "must have 1 to 3 members"), ("PROGRAM", "is larger than 3 bytes")):
        with monkeypatch.context() as patch:
            patch.setattr(archive, limit, 3)
            refused(artefact, message)
    write(artefact, {})
    refused(artefact, "must have 1 to 1,000,000 members, got 0")


def test_pickled_weights(artefact, tmp_path):
    trace, evil = tmp_path / "trace", io.BytesIO()
    torch.save(Evil(str(trace)), evil)
    contents = members(artefact)
    document = json.loads(contents[WEIGHTS])
    entry = next(iter(document["config"].values()))
    entry["use_pickle"] = True
    contents |= {WEIGHTS: json.dumps(document).encode(), f"data/weights/{entry['path_name']}": evil.getvalue()}
    write(artefact, contents)
    # What torch does with this file shows that the test tests something.
    with pytest.raises(Exception):  # noqa: B017, whatever it raises in the end
        torch.export.load(str(artefact / "model.pt2"))
    assert trace.exists()
    trace.rmdir()
    refused(artefact, "pickled, and unpickling runs code")
    assert not trace.exists()


@pytest.mark.parametrize(("change", "message"), [
    (lambda e: e.update(path_name="../../weight_0"), "must lie in data/weights/weight_"),
    (lambda e: e.update(path_name="weight_777"), "must lie in data/weights/weight_"),
    (lambda e: e["tensor_meta"]["sizes"].__setitem__(0, {"as_int": 10 ** 12}), "does not fit into its"),
    (lambda e: e["tensor_meta"]["sizes"].__setitem__(0, {"as_int": -1}), "must have whole numbers"),
    (lambda e: e["tensor_meta"]["sizes"].__setitem__(0, {"as_int": 10 ** 30}), "is too large"),
    (lambda e: e["tensor_meta"]["storage_offset"].update(as_int=10 ** 9), "does not fit into its"),
    (lambda e: e["tensor_meta"]["strides"].__setitem__(0, {"as_int": 10 ** 9}), "does not fit into its"),
    (lambda e: e["tensor_meta"]["strides"].pop(), "as many strides as sizes"),
    (lambda e: e["tensor_meta"]["sizes"].__setitem__(0, {"as_expr": {"expr_str": "exit()"}}), "whole numbers"),
    (lambda e: e["tensor_meta"].update(dtype=99), "of a known dtype"),
    (lambda e: e["tensor_meta"]["device"].update(type="cuda"), "must be on the CPU"),
    (lambda e: e.update(tensor_meta=None), "of a known dtype"),
    (lambda e: e.update(use_pickle=1), "is pickled"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_weights_that_are_not_as_described(artefact, change, message):
    edited(artefact, WEIGHTS, lambda document: change(next(iter(document["config"].values()))))
    refused(artefact, message)


def test_weights_that_are_nan(artefact):
    contents = members(artefact)
    entry = next(iter(json.loads(contents[WEIGHTS])["config"].values()))
    name = f"data/weights/{entry['path_name']}"
    contents[name] = struct.pack("f", float("nan")) + contents[name][4:]
    write(artefact, contents)
    refused(artefact, "holds NaN; did the training diverge")


# -- the program ----------------------------------------------------------------------------------------------------

EVAL = "__import__('os').mkdir('trace')"


def node(document):
    return document["graph_module"]["graph"]["nodes"][0]


def value(document):
    return next(iter(document["graph_module"]["graph"]["tensor_values"].values()))


def signature(document):
    return document["graph_module"]["module_call_graph"][0]["signature"]


def symbol(text):
    return lambda d: value(d)["sizes"].__setitem__(0, {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}})


def spec(kind, context="null"):
    tree = {"type": kind, "context": context, "children_spec": []}
    return lambda d: signature(d).update(out_spec=json.dumps([1, tree]))


def renamed(document):
    """Every use of the input's name."""
    text = json.dumps(document).replace('"input"', '"x, y=exit()"')
    document.update(json.loads(text))


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: node(d).update(target="torch.os.system"), "calls 'torch.os.system'"),
    (lambda d: node(d).update(target="torch.hub.load"), "calls 'torch.hub.load'"),
    (lambda d: node(d).update(target="_operator.methodcaller"), "calls '_operator.methodcaller'"),
    (lambda d: node(d).update(target="math.factorial"), "calls 'math.factorial'"),
    (lambda d: node(d).update(target="#custom:op"), "calls '#custom:op'"),
    (lambda d: node(d).update(target="torch.ops.aten.from_file.default"), "calls 'torch.ops.aten.from_file.default'"),
    (lambda d: node(d).update(target="torch.ops.aten.__class__.default"), "calls 'torch.ops.aten.__class__.default'"),
    (lambda d: node(d).update(target="torch.ops.aten.relu.__init__"), "calls 'torch.ops.aten.relu.__init__'"),
    (lambda d: node(d).update(target="torch.ops.aten.no_such_op.default"), "which this torch does not have"),
    (lambda d: node(d).update(target="torch.ops.load_library.x.y"), "calls 'torch.ops.load_library.x.y'"),
    (lambda d: node(d).update(target="torch.ops.higher_order.print.x"), "calls"),
    (lambda d: node(d).update(target=["torch"]), "a target must be a string"),
    (lambda d: node(d).update(name="x = exit()"), "must be a plain name, got 'x = exit()'"),
    (lambda d: node(d).update(name="self"), "must be a plain name, got 'self'"),
    (lambda d: node(d)["inputs"][0].update(name="a=exit(), b"), "must be a plain name"),
    (lambda d: node(d)["inputs"][0].update(arg={"as_operator": "torch.os.system"}), "holds 'as_operator'"),
    (lambda d: node(d)["inputs"][0].update(arg={"as_custom_obj": {"name": "x", "class_fqn": "y"}}),
     "holds 'as_custom_obj'"),
    (lambda d: node(d)["inputs"][0].update(arg={"as_int": EVAL}), "must not be a string"),
    (lambda d: node(d)["inputs"][0].update(arg={"as_device": {"type": "cuda", "index": 0}}), "must be 'cpu'"),
    (lambda d: node(d)["inputs"][0].update(arg={"as_string": "x" * 20_000}), "must be a short printable string"),
    (renamed, "must be a plain name"),
    (lambda d: signature(d).update(forward_arg_names=["x=exit()"]), "must be a plain name"),
    (spec("builtins.object"), "may only hold tuples, lists and dictionaries"),
    (spec("builtins.dict", json.dumps([{"__enum__": True, "fqn": "antigravity:x", "name": "y"}])), "a plain name"),
    (spec("builtins.dict", json.dumps([["a"]])), "must be a plain name"),
    (spec("builtins.dict", json.dumps([True])), "must be a plain name"),
    (spec("builtins.dict", json.dumps({"a": 1})), "must list a dictionary's keys"),
    (spec("builtins.dict", json.dumps(["a'] = exit()"])), "must be a plain name"),
    (lambda d: signature(d).update(in_spec="[2, {}]"), "must be of protocol 1"),
    (lambda d: signature(d).update(in_spec="[1, 2, 3]"), "must be of protocol 1"),
    (symbol(EVAL), "may not call"),
    (symbol("Symbol('x').func.__globals__"), "may not hold a Attribute"),
    (symbol("[x for x in 'a']"), "may not hold a ListComp"),
    (symbol("(lambda: 0)()"), "may not call"),
    (symbol("exit"), "may not use 'exit'"),
    (symbol("Pow(Integer(9), Integer(99999999))"), "may only hold small powers"),
    (symbol("Add(Integer(1), '__import__')"), "may hold a string only as a symbol's name"),
    (symbol("'abc'"), "may hold a string only as a symbol's name"),
    (symbol("Integer("), "must be an expression"),
    (symbol("-" * 20_000), "must be a short expression"),
    (lambda d: d.update(guards_code=["torch.load(L['x'])"]), "a guard may not use 'load'"),
    (lambda d: d["graph_module"]["graph"].update(nodes=3), "damaged file: model.pt2 does not load"),
    (lambda d: d["graph_module"].update(signature=3), "not of the form that torch.export writes"),
    (lambda d: d["graph_module"].update(module_call_graph={"a": 1}), "holds 'a'"),
    (lambda d: d.update(guards_code=["exit()"]), "a guard may only ask for sizes"),
    (lambda d: d.update(guards_code=["L['x'].__class__ == 3"]), "a guard may not use '__class__'"),
    (lambda d: d.update(guards_code=["os == 3"]), "a guard may not use 'os'"),
    (lambda d: d.update(guards_code=["L['x'].size()[0] == 3\nexit()"]), "must be an expression"),
    (lambda d: d.update(guards_code=["L['x'].size()[0] == 'a\"b'"]), "may not hold"),
    (lambda d: d.update(verifiers=["EVIL"]), "verifiers must be of"),
    (lambda d: d.update(surprise=1), "holds 'surprise'"),
    (lambda d: node(d).update(target="torch.ops.aten._sparse_coo_tensor_unsafe.default"), "calls"),
    (lambda d: d["range_constraints"].update({"u99999999999": {"min_val": 0, "max_val": 1}}), "must not count to"),
    (lambda d: d["graph_module"].update(treespec_namedtuple_fields={"x": {"field_names": []}}), "holds 'x'"),
    (lambda d: d.pop("graph_module"), "has no graph"),
    (lambda d: d["range_constraints"].update({"x = exit()": {"min_val": 0, "max_val": 1}}), "must be a plain name"),
    (lambda d: d["graph_module"]["signature"]["input_specs"][0]["parameter"].update(parameter_name='a")(exit()'),
     "must be the name of a parameter"),
    (lambda d: d["graph_module"]["graph"]["inputs"].append({"as_string": "' + exit() + '"}), "must be plain words"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_programs_that_say_more_than_a_program(artefact, change, message, monkeypatch):
    monkeypatch.chdir(artefact)
    edited(artefact, PROGRAM, change)
    refused(artefact, "(?s)" + re.escape(message))
    assert not Path("trace").exists()


@pytest.mark.parametrize(("text", "message"), [
    (b'{"a": 1, "a": 2}', "the key 'a' is duplicated"), (b'{"a": NaN}', "NaN is not a number"),
    (b'{"a": 1e999}', "1e999 is too large"), (b'{"a": ' + b"9" * 5000 + b"}", "is too large"),
    (b"[" * 100_000, "nested too deeply"), (b"{", "not valid JSON"), (b"\xff", "not valid JSON"), (b"[]", "no graph"),
])
def test_documents_that_are_none(artefact, text, message):
    write(artefact, {**members(artefact), PROGRAM: text})
    refused(artefact, message)


def test_programs_of_other_versions_are_damaged_files(artefact):
    edited(artefact, PROGRAM, lambda d: d["schema_version"].update(major=999))
    refused(artefact, "damaged file: model.pt2 does not load")


def test_real_programs_pass():
    """Symbols, guards and regions are as torch writes them."""

    class Net(torch.nn.Module):
        def forward(self, x, y):
            with torch.no_grad():
                x = x.reshape(x.shape[0] // 2, -1)
            return torch.nn.functional.gelu(x, approximate="tanh") + y.sum()

    dynamic = ({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}, {0: torch.export.Dim.AUTO})
    program = torch.export.export(Net(), (torch.randn(4, 6), torch.randn(8)), dynamic_shapes=dynamic)
    assert checked(io.BytesIO(packed(program)))
    for guard in ("L['x'].size()[0] % 2 == 0", "2 <= L['x']['k'].size()[1] and not L['y'].size()[0] > 3"):
        check_guard(guard)


def test_a_program_is_stripped(original):
    document = json.loads(members(original[1])[PROGRAM])
    assert all(not entry["metadata"] for entry in document["graph_module"]["graph"]["nodes"])
    assert checked_program(json.dumps(document).encode())["torch_version"] == "unknown"


# -- weights --------------------------------------------------------------------------------------------------------


def safetensors(folder, header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)


def header(folder, change):
    """Change the list of tensors, and leave the tensors."""
    raw = (folder / "weights.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    document = json.loads(raw[8:8 + length])
    change(document)
    safetensors(folder, document, raw[8 + length:])


def entry(shape, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


@pytest.mark.parametrize(("write_file", "message"), [
    (lambda f: safetensors(f, b'{"a": {}, "a": {}}'), "the key 'a' is duplicated"),
    (lambda f: safetensors(f, {"a": entry([10 ** 9, 10 ** 9], 4)}, bytes(4)), "was it cut short"),
    (lambda f: safetensors(f, {"a": entry([1], 400)}, bytes(4)), "was it cut short"),
    (lambda f: safetensors(f, {"a": entry([-1], 4)}, bytes(4)), "was it cut short"),
    (lambda f: safetensors(f, {"a": entry([1], 4)}, bytes(4)), "lacks '0.bias' .* and has besides 'a'"),
    (lambda f: header(f, lambda h: h["0.bias"].update(dtype="F99")), "weights.safetensors cannot be read"),
    (lambda f: header(f, lambda h: h["0.bias"].update(data_offsets=h["1.weight"]["data_offsets"])), "cannot be read"),
    (lambda f: header(f, lambda h: h["0.bias"].update(more=1)), "'0.bias' is described by"),
    (lambda f: safetensors(f, {"__metadata__": {"folded": 1}}), "must be words"),
    (lambda f: safetensors(f, b"[" * 50_000), "nested too deeply"),
    (lambda f: (f / "weights.safetensors").write_bytes(b""), "no safetensors file"),
    (lambda f: (f / "weights.safetensors").write_bytes(struct.pack("<Q", 2 ** 60)), "no safetensors file"),
    (lambda f: (f / "weights.safetensors").write_bytes((f / "weights.safetensors").read_bytes()[:-5]), "cut short"),
    (lambda f: (f / "weights.safetensors").unlink(), "has no weights.safetensors"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_weights_files(original, artefact, write_file, message):
    write_file(artefact)
    refused(artefact, message, NETS["sequential"][0]())


def rewritten(folder, change):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "weights.safetensors")
    change(state)
    save_file(state, folder / "weights.safetensors")


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s["0.bias"].fill_(float("nan")), "'0.bias' holds NaN"),
    (lambda s: s.update({"0.bias": s["0.bias"][:1]}), "'0.bias' must have the shape"),
    (lambda s: s.update({"0.bias": s["0.bias"].long()}), "'0.bias' must be torch.float32, got torch.int64"),
])
def test_weights_of_another_model(artefact, change, message):
    rewritten(artefact, change)
    refused(artefact, message, NETS["sequential"][0]())


def test_weights_that_are_nan_are_not_saved(tmp_path):
    build, inputs = NETS["sequential"]
    small = fxprune.compress(build(), inputs(2), channels=0.5, verify=False)
    with torch.no_grad():
        small.get_parameter("0.bias").fill_(float("nan"))
    with pytest.raises(InputError, match="'0.bias' holds NaN"):
        fxprune.save(small, tmp_path / "nan")
    assert not list(tmp_path.iterdir())


# -- the folder and the plan ----------------------------------------------------------------------------------------


def test_links_that_lead_out(artefact, tmp_path):
    shutil.move(artefact / "model.pt2", tmp_path / "elsewhere.pt2")
    (artefact / "model.pt2").symlink_to(tmp_path / "elsewhere.pt2")
    refused(artefact, "must be a plain file in the artefact's own folder")


@pytest.mark.parametrize("name", ["model.pt2", "weights.safetensors", "plan.json"])
def test_files_that_are_too_large(artefact, name):
    # Sparse: it takes no room.
    os.truncate(artefact / name, 2 ** 36 + 1)
    with pytest.raises((ArtefactError, PlanError), match="must not be larger than"):
        fxprune.load(artefact, model=None if name == "model.pt2" else NETS["sequential"][0]())


@pytest.mark.parametrize("name", ["model.pt2", "weights.safetensors", "plan.json"])
def test_what_is_no_file(artefact, name):
    (artefact / name).unlink()
    (artefact / name).mkdir()
    refused(artefact, f"{name} must be a plain file", None if name == "model.pt2" else NETS["sequential"][0]())


def test_no_folder(tmp_path):
    refused(tmp_path / "nothing", "an artefact is a folder")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "an artefact is a folder")


def test_source_is_never_run(artefact):
    (artefact / "model.py").write_text("raise SystemExit('ran')")
    fxprune.load(artefact)
    fxprune.load(artefact, model=NETS["sequential"][0]())


@pytest.mark.parametrize(("old", "new", "message"), [
    ('"0-', '"0-999999999999,', "damaged plan file"), ("{", "{{", "not valid JSON"),
    ('"format"', '"format": "x", "format"', "duplicated"),
    ('"heads": "dims"', '"heads": "both"', "policy.heads must be one of"),
    ('"grouped"', '"gruoped"', "unknown key 'gruoped'"),
    ("[2, 3, 8, 8]", "[99999999, 3, 99999, 8]", "at most 1,073,741,824 elements"),
])
def test_plans(artefact, old, new, message):
    text = (artefact / "plan.json").read_text()
    assert old in text
    (artefact / "plan.json").write_text(text.replace(old, new, 1))
    with pytest.raises((PlanError, ArtefactError), match=message):
        fxprune.load(artefact, model=NETS["sequential"][0]())


def test_a_model_of_another_class(artefact):
    with pytest.raises(PlanError, match="a plan only fits a model"):
        fxprune.load(artefact, model=NETS["residual"][0]())
    with pytest.raises(ArtefactError, match="must be an instance of the original class, got type"):
        fxprune.load(artefact, model=torch.nn.Linear)
