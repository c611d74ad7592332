"""A callback for Accelerate's loops: the penalty's proximal step, and its state in ``accelerator.save_state``.

    proximal = Proximal(penalty, accelerator, optimizer, model)
    for batch in loader:
        with accelerator.accumulate(model):
            ...
            optimizer.step()
            proximal()
"""

from typing import Any

from fxprune.errors import InputError, MissingExtraError
from fxprune.training import DWGL


class Proximal:
    """Call it after ``optimizer.step()``: it shrinks channels where that was an update.

    Args:
        penalty: over `fxprune.analyze` of the model as it was before ``accelerator.prepare``.
        accelerator: the loop's.
        optimizer, model: as ``accelerator.prepare`` returned them.

    Raises:
        MissingExtraError: accelerate is not installed.
        InputError: no penalty, or no accelerator.
    """

    def __init__(self, penalty: DWGL, accelerator: Any, optimizer: Any, model: Any):
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise MissingExtraError("Proximal needs accelerate; write pip install 'fxprune[accelerate]'") from error
        if not isinstance(penalty, DWGL):
            raise InputError(f"penalty must be a fxprune.DWGL, got {type(penalty).__name__}; write "
                             "DWGL(fxprune.analyze(model))")
        if not isinstance(accelerator, Accelerator):
            raise InputError(f"accelerator must be an accelerate.Accelerator, got {type(accelerator).__name__}; write "
                             "Proximal(penalty, accelerator, optimizer, model)")
        self.penalty, self.accelerator, self.optimizer = penalty, accelerator, optimizer
        self.model = accelerator.unwrap_model(model)
        accelerator.register_for_checkpointing(penalty)

    def __call__(self) -> None:
        """Nothing happens where gradients are still accumulated, or the update was skipped (overflow)."""
        if not self.accelerator.sync_gradients or self.accelerator.optimizer_step_was_skipped:
            return
        self.penalty.proximal_(self.model, max(group["lr"] for group in self.optimizer.param_groups))
        self.penalty.step(self.model)
