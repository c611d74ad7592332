"""What a compressed model is shipped as: a folder of files that load without fxprune."""

from fxprune.artefacts.loading import load
from fxprune.artefacts.saving import Saved, save

__all__ = ["Saved", "load", "save"]
