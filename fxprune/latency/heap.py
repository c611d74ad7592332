"""Bring the C library's heap into the state that it has in a process which has run large models for a while.

glibc hands a large block back to the system when it is freed, and whoever wants it again pays for each of its pages.
It does so above a threshold, which rises to the largest block that was ever freed, up to 32 MiB (mallopt(3),
``M_MMAP_THRESHOLD``). So the activations of a small model cost page faults until, by chance, something larger comes by:
measured before and after that, MobileNetV2 differs by a third (`benchmarks/heap.py`), and not all of its layers alike.
"""

import torch

# Just below what glibc still learns from.
LARGEST = (32 << 20) - (64 << 10)


def settle() -> None:
    """Free one large block. It is never touched, so that it costs nothing; other C libraries do not mind.

    >>> settle()
    """
    torch.empty(LARGEST, dtype=torch.uint8, device="cpu")
