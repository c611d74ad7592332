"""A callback for Lightning: the penalty's proximal step after every update, its state in every checkpoint.

    trainer = Trainer(callbacks=[ProximalCallback(DWGL(fxprune.analyze(module.net, example)), "net")])
"""

from typing import TYPE_CHECKING, Any

from fxprune.errors import InputError, MissingExtraError
from fxprune.training import DWGL

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        Callback = object


class ProximalCallback(Callback):
    """Shrinks the channels of a model after each optimizer step; with accumulated gradients, after the last of them.

    Args:
        penalty: over `fxprune.analyze` of the model that is to be pruned.
        attribute: where that model is in the ``LightningModule`` (``"net"``); the module itself where empty.

    Raises:
        MissingExtraError: lightning is not installed.
        InputError: no penalty.
    """

    def __init__(self, penalty: DWGL, attribute: str = ""):
        if Callback is object:
            raise MissingExtraError("ProximalCallback needs lightning; write pip install 'fxprune[lightning]'")
        if not isinstance(penalty, DWGL):
            raise InputError(f"penalty must be a fxprune.DWGL, got {type(penalty).__name__}; write "
                             "DWGL(fxprune.analyze(model))")
        super().__init__()
        self.penalty, self.attribute = penalty, attribute
        self._steps = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Where this batch ended in an update."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        model = pl_module.get_submodule(self.attribute)
        self.penalty.proximal_(model, max(group["lr"] for group in trainer.optimizers[0].param_groups))
        self.penalty.step(model)

    def state_dict(self) -> dict[str, Any]:
        return self.penalty.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.penalty.load_state_dict(state_dict)
