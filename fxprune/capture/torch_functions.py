"""Functions that torch documents under private names."""

import torch

ASSERT = torch._assert
foreach_mul = torch._foreach_mul
foreach_mul_ = torch._foreach_mul_
