"""The heap as a process has it that has run large models: what is freed stays there, and costs no page faults."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from fxprune.latency import heap

if sys.argv[1] == "settled":
    heap.settle()
for turn in range(22):
    if turn == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2 << 20) for _ in range(3)]  # of 8 MiB, 2,048 pages
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(state: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, state], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or sys.platform != "linux", reason="glibc's malloc")
def test_what_is_freed_stays():
    fresh, settled = faults("fresh"), faults("settled")
    assert 10 * settled < fresh
