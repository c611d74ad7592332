"""The recipes for several processes: what they print is the same on every rank, and what they were told to reach."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


def run(*command):
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["lightning", "accelerate"])
def test_shards_on_two_processes(engine, tmp_path):
    pytest.importorskip(engine)
    script = EXAMPLES / f"sharded_{engine}.py"
    said = run(script, "--out", tmp_path) if engine == "lightning" else run(*TORCHRUN, script, "--cpu")
    # Two processes may write into one line.
    lines = sorted(re.findall(r"rank (\d): (.*?accuracy [\d.]+%)", said))
    assert [rank for rank, _ in lines] == ["0", "1"] and len({line for _, line in lines}) == 1
    line = lines[0][1]
    # 512 examples in batches of 16, eight times, half of them on each rank.
    assert "step 128, released" in line
    assert 45 < float(re.search(r"([\d.]+)% of the MACs", line)[1]) <= 50
    assert float(re.search(r"accuracy ([\d.]+)%", line)[1]) > 70


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_the_trainer(processes, tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    said = run(*(TORCHRUN if processes > 1 else ()), EXAMPLES / "transformers_trainer.py", "--out", tmp_path)
    lines = re.findall(r"target 60.0% of the macs, .*?accuracy [\d.]+%", said)
    assert len(lines) == processes and len(set(lines)) == 1 and "released" in lines[0]
    assert float(re.search(r"accuracy ([\d.]+)%", lines[0])[1]) > 90
