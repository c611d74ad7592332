"""Puts this folder on the path, so that tests in folders below can import ``reference``."""

import torch

torch.set_num_threads(1)
