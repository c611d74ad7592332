"""Penalties that let the gradient decay a channel's coupled slices, each at a rate of its own."""

from fxprune.training.decay.balanced import AutoBalanced
from fxprune.training.decay.channel_decay import ChannelDecay
from fxprune.training.decay.growing import GReg1
from fxprune.training.decay.incremental import IncReg
from fxprune.training.decay.probabilistic import SPP
from fxprune.training.decay.sparse_learning import SparseLearning

__all__ = ["SPP", "AutoBalanced", "ChannelDecay", "GReg1", "IncReg", "SparseLearning"]
