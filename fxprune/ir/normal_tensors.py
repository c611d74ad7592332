"""Tensors that outlive the run that they are made in."""

import torch


class NormalTensors(torch.inference_mode):
    """What is made in here is no tensor of inference mode, whatever is entered around it. A class of our own, so that
    capture tells it from the regions that a model enters.

    >>> with torch.inference_mode():
    ...     with NormalTensors():
    ...         made = torch.ones(1)
    >>> made.is_inference()
    False
    """

    def __init__(self) -> None:
        super().__init__(False)
