"""Capture a model: one graph where ``train()`` and ``eval()`` agree, else one for each, and the tapes of the runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from fxprune.capture.contexts import compiling
from fxprune.capture.dtypes import cast
from fxprune.capture.dynamic_sizes import settle
from fxprune.capture.example import VARIATIONS, check, describe, varied
from fxprune.capture.liveness import drop_dead
from fxprune.capture.memoised import fresh_caches
from fxprune.capture.model_walk import named_modules, named_tensors
from fxprune.capture.observer import Observer
from fxprune.capture.own_errors import own_bugs
from fxprune.capture.pytrees import tree_iter, tree_map_only
from fxprune.capture.randomness import undrawn, untouched_rng
from fxprune.capture.skipping import Choice, Decision, Draws, choice, joined
from fxprune.capture.structure import check_hooks, isolated_copy, structural_copy
from fxprune.capture.traced import Traced
from fxprune.capture.tracer import Tracer, is_leaf
from fxprune.capture.watch import Watcher, watch
from fxprune.errors import CaptureError, FxpruneError, InputError, RuleError
from fxprune.ir import example_inputs
from fxprune.ir.call_arguments import arguments, labelled
from fxprune.ir.example_inputs import Example, Inputs
from fxprune.ir.inferred_inputs import candidates
from fxprune.rules.bugs import Bug

GRAPH, MODULE = "graph", "module"


@dataclass(frozen=True, eq=False)
class Captured:
    """What was captured.

    Args:
        root: the structural copy that the graphs refer to.
        modes: ``{"eval": Traced, "train": Traced}``; the same object where the graphs agree.
        inputs: the example inputs' description.
        mode: ``"graph"``, or ``"module"`` where the model's Python could not be traced.
        held: leaf modules that the model's own ``train()`` keeps in inference mode.
        untrained: in module mode, why no run in training mode is known.
        ways: in module mode, further ways that data can lead through the model's Python: the variation of the inputs
            that went there, and its tape.
        why: in module mode, what stood in the way; for a missing training graph, what that failed with.
        bugs: what capture's own Python failed with, where another way was taken.
        eager: where the graph is what the model runs under ``torch.compile`` (``torch.compiler.is_compiling()``): what
            stood in the way of the graph of what it runs without.
        example: the user's own inputs, where they were given.
        differentiates: whether its forward needs gradients, of which operators there are more, below composite ones.
        real: whether the graph was traced on true tensors, since the meta device could not.
        attributed: by mode, the run that shows which numbers are attributes of modules; where a shrunken copy of the
            model's own class is wanted, and there is a graph.
    """

    root: nn.Module
    modes: dict[str, Traced]
    inputs: Inputs
    mode: str
    why: str = ""
    untrained: str = ""
    eager: str = ""
    bugs: tuple[Bug, ...] = ()
    example: Example | None = None
    differentiates: bool = False
    held: tuple[str, ...] = ()
    ways: Mapping[str, Traced] = field(default_factory=dict)
    real: bool = False
    attributed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def traced(self) -> list[Traced]:
        """The distinct graphs, or tapes."""
        return list({id(t): t for t in (*self.modes.values(), *self.ways.values())}.values())

    @property
    def unreached(self) -> list[str]:
        """In module mode, the leaf modules with parameters that no run has called, nor read in any other way."""
        met = {path for traced in self.traced for path in traced.tape.modules}
        met |= {name.rpartition(".")[0] for traced in self.traced for name in traced.tape.read}
        return [path for path, module in self.root.named_modules()
                if is_leaf(module) and path not in met and any(True for _ in module.parameters())]


def capture(model: nn.Module, example: Any = None) -> Captured:
    """Capture ``model`` on example inputs (inferred where None).

    Raises:
        InputError: the inputs do not fit, or none could be inferred.
        CaptureError: the model raises in forward.
    """
    if isinstance(example, Inputs):
        example_ = example_inputs.realise(example, _device(model), torch.Generator().manual_seed(0))
        return _capture(model, example_, example)
    if example is not None:
        normal = example_inputs.normalise(example)
        return replace(_capture(model, normal, describe(normal)), example=normal)
    return _inferred(model)


def _inferred(model: nn.Module) -> Captured:
    tried = []
    for guess, words in candidates(model):
        shape = tuple(next(iter(tree_iter(guess))).shape)
        try:
            described = describe(guess, f"shape {shape} from {words}")
            return _capture(model, guess, _with_range(model, described))
        except FxpruneError as error:
            tried.append((shape, error))
    if not tried:
        raise InputError("example_inputs could not be inferred: the model has no layer that tells an input size; "
                         "pass example_inputs=torch.randn(…)")
    listed = "; ".join(f"{shape}: {error}" for shape, error in tried[:3])
    raise InputError(f"example_inputs could not be inferred: none of {[s for s, _ in tried]} runs ({listed}); "
                     "pass example_inputs=torch.randn(…)")


def _with_range(model: nn.Module, described: Inputs) -> Inputs:
    """Inferred token ids may be any that the embedding knows."""
    sizes = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    if not sizes:
        return described
    return replace(described, args=tuple(replace(s, high=sizes[0]) if s.dtype == "int64" else s
                                         for s in described.args))


def _capture(model: nn.Module, example: Example, described: Inputs) -> Captured:
    arguments(model, example)  # must fit forward, before anything is run
    check(model, example)
    bugs: list[Bug] = []
    with untouched_rng():
        check_hooks(model, *example)
        try:
            return _graphs(model, described, real=False)
        except CaptureError as error:
            captured = _compiling(model, described, str(error))
            if captured is not None:
                return captured
        except (InputError, RuleError):
            raise
        except Exception as error:
            # What the meta device cannot do, true tensors may; the reason is theirs, if they cannot either.
            bugs += own_bugs(error)
        try:
            return replace(_graphs(model, described, real=True, example=example), bugs=tuple(bugs))
        except (InputError, RuleError):
            raise
        except Exception as error:
            bugs += own_bugs(error)
            why = f"{type(error).__name__}: {error}" if not isinstance(error, CaptureError) else str(error)
        watched = _watched(model, example, described, why)
        return replace(watched, bugs=tuple(dict.fromkeys((*bugs, *watched.bugs))))


def _compiling(model: nn.Module, described: Inputs, why: str) -> Captured | None:
    """What the model runs when it is told that it is being compiled, should that be without a look at the data."""
    with compiling(True):
        try:
            return replace(_graphs(model, described, real=False), eager=why)
        except RuleError:
            raise
        except Exception as error:  # the reasons that are told are those of the model as it runs by itself
            own_bugs(error)
            return None


def _graphs(model: nn.Module, described: Inputs, real: bool, example: Example | None = None) -> Captured:
    example = example if real and example else example_inputs.realise(described, "meta")

    choices: list[Choice] = []

    def trace(training: bool, inputs: Example, recast: torch.dtype | None = None) -> tuple[Traced, nn.Module]:
        if training:
            return _trained(model, real, inputs, recast, choices)
        return _finished(*_trace(model, Observer(real), False, inputs, recast))

    def settled(traced: Traced, training: bool) -> Traced:
        return settle(traced, example, lambda inputs, recast: trace(training, inputs, recast)[0],
                      attempts=2 if real else 6)

    evaluated, root = undrawn(model, lambda: trace(False, example))
    held, switches = (), _switches(model)
    if switches:
        held = tuple(name for name, m in root.train(True).named_modules() if is_leaf(m) and not m.training)
    if not evaluated.asked_training and not switches:
        evaluated = settled(evaluated, False)
        return Captured(root, {"eval": evaluated, "train": evaluated}, described, GRAPH, held=held, real=real)
    try:
        trained, _ = undrawn(model, lambda: trace(True, example))
    except Exception as error:
        bugs, why = tuple(own_bugs(error)), f"{type(error).__name__}: {error}"
        return Captured(root, {"eval": settled(evaluated, False)}, described, GRAPH, why, held=held, bugs=bugs,
                        real=real)
    same = _same(trained, evaluated)
    evaluated = settled(evaluated, False)
    trained = evaluated if same else settled(trained, True)
    return Captured(root, {"eval": evaluated, "train": trained}, described, GRAPH, held=held, real=real)


def _trained(model: nn.Module, real: bool, example: Example, recast: torch.dtype | None, choices: list[Choice]
             ) -> tuple[Traced, nn.Module]:
    """In training mode; what is decided by numbers that are drawn is found once, and written into ``choices``."""
    def turned(number: int | None) -> tuple[Traced, nn.Module, list[Decision]]:
        draws = Draws(number)
        return *_trace(model, Observer(real, True, draws), True, example, recast), draws.decisions

    traced, root, decisions = turned(None)
    if not decisions:
        return _finished(traced, root)
    if not choices:
        choices += [choice(traced, decisions, k, turned(k)[0]) for k in range(len(decisions))]
    return _finished(joined(traced, decisions, choices), root)


def _finished(traced: Traced, root: nn.Module) -> tuple[Traced, nn.Module]:
    drop_dead(traced.graph, traced.tape)
    used = next((node for node in traced.graph.nodes if node.op == "get_attr" and node.target in traced.unseen), None)
    if used is not None:
        raise CaptureError(traced.unseen[used.target])
    for name in traced.unseen:
        del traced.constants[name]
    traced.tape.ran = [call for call in traced.tape.ran if call.node not in traced.choosing]
    return traced, root


def _trace(model: nn.Module, observer: Observer, training: bool, example: Example, recast: torch.dtype | None = None
           ) -> tuple[Traced, nn.Module]:
    """With its dead code."""
    root, contents = (isolated_copy(model), {}) if observer.real else structural_copy(model)
    if recast is not None:
        cast(root, recast)
    _set_mode(root, training)
    root.requires_grad_(False)  # TorchScript records gradients of what requires them, inference mode or not
    args, kwargs = _own(example)
    introduce(observer, root, contents, (args, kwargs))
    with fresh_caches(model):
        traced = Tracer(root, observer, _device(model)).trace(args, kwargs)
    # A parameter that is not the model's own (a closure's) cannot be sliced with it: its tensor is of unknown origin.
    for name, constant in ((n, c) for n, c in traced.constants.items() if not isinstance(c, nn.Parameter)):
        observer.tape.constants[observer.ref(_on_tape(observer, constant)).id] = name
    observer.returns(traced.output)
    return traced, root


def _switches(model: nn.Module) -> bool:
    """Whether some module's own ``train()`` may do more than set a flag."""
    own = {type(module) for _, module in named_modules(model)}
    return any(kind.train is not nn.Module.train or issubclass(kind, torch.jit.ScriptModule) for kind in own)


def _set_mode(root: nn.Module, training: bool) -> None:
    """``train()``, which takes a call and a checked assignment for every module; most need neither."""
    if _switches(root):
        root.train(training)
        return
    for _, module in named_modules(root):
        vars(module)["training"] = training


def _own(example: Example) -> Example:
    """A copy, since the model may write into its inputs."""
    return tree_map_only(torch.Tensor, lambda t: t.detach().clone(), example)


def _on_tape(observer: Observer, constant: torch.Tensor) -> torch.Tensor:
    return constant if observer.real or constant.device.type == "meta" else observer.adopt(constant)


def introduce(observer: Observer, root: nn.Module, contents: dict[str, torch.Tensor], example: Example) -> None:
    """Tell the observer which tensors are parameters, which inputs, and what the index buffers hold."""
    for name, tensor in named_tensors(root):
        number = observer.ref(tensor).id
        if number in observer.tape.params:
            continue  # a shared one goes by its first name
        observer.tape.params[number] = name
        if name in contents:
            observer.know(tensor, contents[name])
        elif observer.real and not tensor.is_floating_point() and not tensor.is_complex():
            observer.know(tensor, tensor.detach().clone())
    for name, value in labelled(root, example):
        for tensor in tree_iter(value):
            if isinstance(tensor, torch.Tensor):
                observer.tape.inputs[observer.ref(tensor).id] = name


def _same(a: Traced, b: Traced) -> bool:
    """Whether two graphs are one: the same calls of the same constants, and of the same operators inside modules."""
    if len(a.graph.nodes) != len(b.graph.nodes) or len(a.tape.calls) != len(b.tape.calls):
        return False
    constants = zip(a.constants.values(), b.constants.values(), strict=False)
    texts = zip(_text(a), _text(b), strict=False)
    return all(x == y for x, y in texts) and all(torch.equal(x, y) for x, y in constants)


def _text(traced: Traced) -> Iterator[tuple[Any, ...]]:
    yield from ((n.op, n.name, n.target, str(n.args), str(n.kwargs)) for n in traced.graph.nodes)
    yield from ((name, module.key) for name, module in traced.added.items())
    told = not traced.graph.nodes  # of a run without a graph, literals stand in the tape alone
    yield from ((c.op, c.overload, str((c.args, c.kwargs)) if told else "") for c in traced.tape.calls)


def _watched(model: nn.Module, example: Example, described: Inputs, why: str) -> Captured:
    """The last resort: only watch the model run, and run again on other values where some layers were not called."""
    bugs: list[Bug] = []
    try:
        (traced, root), differentiates = _run(model, example), False
    except Exception as error:
        bugs += own_bugs(error)
        try:
            (traced, root), differentiates = _run(model, example, differentiates=True), True
        except Exception as error:
            raise CaptureError(f"the model must run on its example inputs; forward raised {type(error).__name__}: "
                               f"{error}") from error
    modes, untrained = {"eval": traced}, ""
    try:
        trained, _ = undrawn(model, lambda: _run(model, example, differentiates, training=True))
        modes["train"] = traced if _same(trained, traced) else trained
    except Exception as error:
        bugs += own_bugs(error)
        untrained = f"{type(error).__name__}: {error}"
    captured = Captured(root, modes, described, MODULE, why, untrained, differentiates=differentiates)
    for variation in VARIATIONS:
        if not captured.unreached:
            break
        try:
            traced, _ = _run(model, varied(example, variation), differentiates)
        except Exception as error:  # not every input is one that the model can take
            bugs += own_bugs(error)
            continue
        if set(traced.tape.modules) & set(captured.unreached):
            captured = replace(captured, ways={**captured.ways, variation: traced})
    return replace(captured, bugs=tuple(bugs))


def _run(model: nn.Module, example: Example, differentiates: bool = False, training: bool = False
         ) -> tuple[Traced, nn.Module]:
    """The tape of a run, and the copy of the model that it ran."""
    root, observer = isolated_copy(model).train(training), Watcher()
    example = _own(example)
    introduce(observer, root, {}, example)
    with fresh_caches(model):
        return watch(root, observer, example, differentiates), root


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for _, tensor in named_tensors(model)), torch.device("cpu"))
