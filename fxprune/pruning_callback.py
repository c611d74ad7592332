"""A callback for Lightning that prunes while a model trains: a step of a schedule, an epoch's start at a time.

    steps = fxprune.schedule(0.5, steps=3)
    trainer = Trainer(callbacks=[PruningCallback({4: steps[0], 8: steps[1], 12: steps[2]}, "net")])

The model is compressed where it lies in the ``LightningModule``, and the momentum and moments of its optimizers are
sliced along with it; learning-rate schedulers go on where they are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fxprune.api import apply, compress
from fxprune.errors import ArtefactError, InputError, MissingExtraError, UnsupportedError
from fxprune.planning import Plan
from fxprune.results import found_record, record

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        Callback = object


class PruningCallback(Callback):
    """Compresses a model at the beginning of some epochs of its training.

    Args:
        kept: epoch, counted from 0 -> what is kept from then on, as a fraction of the first original.
        attribute: where the model is in the ``LightningModule`` (``"net"``); it is replaced there.
        example_inputs: as for `fxprune.compress`; inferred where None.
        cost: ``"macs"`` or ``"params"``.
        options: as for `fxprune.compress`: ``criterion``, ``ignore``, ``round_to``, ``verify``, ….

    Raises:
        MissingExtraError: lightning is not installed.
        InputError: no epochs with fractions, or no attribute.
    """

    def __init__(self, kept: Mapping[int, float], attribute: str, example_inputs: Any = None, *, cost: str = "macs",
                 **options: Any):
        if Callback is object:
            raise MissingExtraError("PruningCallback needs lightning; write pip install 'fxprune[lightning]'")
        if not isinstance(kept, Mapping) or not kept or not all(isinstance(epoch, int) for epoch in kept):
            raise InputError(f"kept must map epochs to fractions, got {kept!r}; write "
                             "PruningCallback(dict(zip((4, 8, 12), fxprune.schedule(0.5, steps=3))), \"net\")")
        if not isinstance(attribute, str) or not attribute:
            raise InputError(f"attribute must name the model in the LightningModule, got {attribute!r}; keep it in one "
                             "(self.net = …) and write attribute=\"net\"")
        if cost not in ("macs", "params"):
            raise InputError(f"cost must be 'macs' or 'params', got {cost!r}")
        super().__init__()
        self.kept, self.attribute, self.example_inputs = dict(kept), attribute, example_inputs
        self.cost, self.options = cost, options
        self.plan: Plan | None = None
        self.why = ""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Where this epoch has a step: compress, and slice the optimizers."""
        fraction = self.kept.get(trainer.current_epoch)
        if fraction is None:
            return
        if trainer.world_size > 1:
            raise UnsupportedError("PruningCallback replaces modules, which processes that train one model together "
                                   "would not notice; end fit(), compress, and fit() again")
        model = pl_module.get_submodule(self.attribute)
        asked: dict[str, Any] = {**self.options, self.cost: fraction}
        small = compress(model, self.example_inputs, of="original", **asked)
        last = record(small)
        old = [_plain(optimizer) for optimizer in trainer.optimizers]
        new = {id(optimizer): last.plan.apply_to_optimizer(optimizer, model, small) for optimizer in old}
        _put(pl_module, self.attribute, small)
        trainer.strategy.optimizers = list(new.values())
        for config in trainer.lr_scheduler_configs:
            config.scheduler.optimizer = new[id(config.scheduler.optimizer)]
        self.plan = last.plan if last.overall is None else last.overall.plan
        self.why = "" if last.overall is None else last.overall.why

    def state_dict(self) -> dict[str, Any]:
        """The plan from the first original to the model of the checkpoint."""
        return {"plan": None if self.plan is None else self.plan.to_dict(), "why": self.why}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `restore` has carried out."""
        self.plan = None if state_dict["plan"] is None else Plan.from_dict(state_dict["plan"])
        self.why = state_dict["why"]

    def restore(self, pl_module: Any, path: str | Path) -> None:
        """Give a new ``LightningModule`` the form of a checkpoint: call it before ``trainer.fit(ckpt_path=path)`` or
        ``load_state_dict``.

        Args:
            pl_module: with the first original in its attribute.
            path: of a checkpoint that was written while this callback ran.

        Raises:
            ArtefactError: the checkpoint holds no state of such a callback, or no plan that leads to its model.
            PlanError: its plan is of another model.
        """
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state = saved.get("callbacks", {}).get(self.state_key)
        if state is None:
            raise ArtefactError(f"{str(path)!r} must be a checkpoint of a training with a PruningCallback, and holds "
                                "no state of one")
        self.load_state_dict(state)
        if self.why:
            raise ArtefactError(f"{str(path)!r} holds a model that no one plan leads to: {self.why}")
        model = pl_module.get_submodule(self.attribute)
        if self.plan is not None and found_record(model) is None:
            _put(pl_module, self.attribute, apply(model, self.plan, self.example_inputs, weights="any"))


def _put(module: nn.Module, path: str, value: nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    setattr(module.get_submodule(owner), name, value)


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """Without Lightning's wrapper."""
    plain: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return plain
