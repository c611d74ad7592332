"""What a compressed model is shipped as: a folder of files that load without fxprune, and that nobody has to trust."""

from fxprune.artefacts.folder import Saved, save
from fxprune.artefacts.load import load

__all__ = ["Saved", "load", "save"]
