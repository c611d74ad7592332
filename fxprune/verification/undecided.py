"""What one precision cannot tell, another may."""

from fxprune.errors import VerificationError


class Undecided(VerificationError):
    """One side does not run in this precision, or leaves its range: a dtype, or the limits of one, stand in the model's
    own Python (``x.float()``, a mask that is filled with ``torch.finfo(x.dtype).min``)."""


class Stalled(Undecided):
    """The result does not run where the original does."""
