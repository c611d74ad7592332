"""A callback for the Trainer of transformers: the penalty's proximal step after every update, its state in every
checkpoint.

    Trainer(model, arguments, callbacks=[ProximalCallback(DWGL.towards(coupling, macs=0.5, steps=1000))], ...)
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fxprune.errors import InputError, MissingExtraError
from fxprune.ir.files import write_text
from fxprune.training import DWGL

if TYPE_CHECKING:
    from transformers import TrainerCallback
else:
    try:
        from transformers import TrainerCallback
    except ImportError:
        TrainerCallback = object

STATE = "fxprune_penalty.json"


class ProximalCallback(TrainerCallback):
    """Shrinks the channels of the Trainer's model after each update; with accumulated gradients, after their last.

    A checkpoint holds the penalty's state beside the optimizer's, and ``trainer.train(resume_from_checkpoint=...)``
    goes on with it.

    Args:
        penalty: over `fxprune.analyze` of the model.

    Raises:
        MissingExtraError: transformers is not installed.
        InputError: no penalty; or, resuming, a checkpoint of a run without it.
    """

    def __init__(self, penalty: DWGL):
        if TrainerCallback is object:
            raise MissingExtraError("ProximalCallback needs transformers; write pip install transformers")
        if not isinstance(penalty, DWGL):
            raise InputError(f"penalty must be a fxprune.DWGL, got {type(penalty).__name__}; write "
                             "DWGL(fxprune.analyze(model))")
        self.penalty = penalty

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.global_step:
            return
        path = _checkpoint(args, state) / STATE
        if not path.is_file():
            raise InputError(f"a run is resumed at step {state.global_step}, whose checkpoint holds no state of a "
                             f"penalty ({path.name} in {path.parent.name}); resume one that was trained with this "
                             "callback")
        self.penalty.load_state_dict(json.loads(path.read_text()))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None,
                          **kwargs: Any) -> None:
        self.penalty.proximal_(model, max(group["lr"] for group in optimizer.param_groups))
        self.penalty.step(model)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            write_text(_checkpoint(args, state) / STATE, json.dumps(self.penalty.state_dict()),
                       "the penalty's state", InputError)


def _checkpoint(args: Any, state: Any) -> Path:
    """The folder that the Trainer writes at this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
