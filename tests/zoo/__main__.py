"""``python -m tests.zoo --suite torchvision``: compress every model of a suite, and write ``docs/zoo.md``.

Rows are kept as JSON lines while they come, so that an interrupted run goes on where it stopped; ``--again`` drops the
rows whose model matches a pattern (``failed`` stands for those that failed).
"""

import argparse
import json
import warnings
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from tests.zoo.measure import measure
from tests.zoo.pool import rows
from tests.zoo.suites import SUITES
from tests.zoo.table import write

HOME = Path(__file__).resolve().parents[2]


def work(job: tuple[str, str], verify: bool, run: bool) -> dict:
    suite, name = job
    torch.manual_seed(0)
    model, inputs = SUITES[suite][1](name)
    return measure(model, inputs, verify, run)


def main() -> None:
    options = _options()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    # Imported once, before the processes part.
    import timm  # noqa: F401
    import torchvision  # noqa: F401

    with suppress(ImportError):
        import diffusers  # noqa: F401
    with suppress(ImportError):
        import transformers.models.llama.modeling_llama  # noqa: F401

    known = [] if not options.rows.exists() else [json.loads(line) for line in options.rows.read_text().splitlines()]
    kept = [row for row in known if not (options.again and _matches(row, options.again))]
    done = {(row["suite"], row["model"]) for row in kept}
    jobs = [(suite, name) for pattern in options.only for suite in options.suite for name in SUITES[suite][0]()
            if fnmatchcase(name, pattern) and (suite, name) not in done]
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    options.rows.write_text("".join(json.dumps(row) + "\n" for row in kept))
    jobs = list(dict.fromkeys(jobs))
    todo = partial(work, verify=not options.no_verify, run=not options.no_run)
    with options.rows.open("a") as file, tqdm(total=len(jobs)) as bar:
        for (suite, name), row in rows(jobs, todo, options.workers, options.seconds, options.memory):
            kept.append({"suite": suite, "model": name, **row})
            file.write(json.dumps(kept[-1]) + "\n")
            file.flush()
            bar.update()
            bar.set_postfix_str(name)
            if "failed" in row:
                bar.write(f"{name}: {row['failed']}")
    write(kept, options.table)


def _matches(row: dict, pattern: str) -> bool:
    return "failed" in row if pattern == "failed" else fnmatchcase(row["model"], pattern)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__.splitlines()[0])
    parser.add_argument("--suite", nargs="+", choices=list(SUITES), default=list(SUITES))
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="models whose names match one")
    parser.add_argument("--again", metavar="PATTERN", help="redo these rows ('failed': those that failed)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=600, help="time limit a model")
    parser.add_argument("--memory", type=float, default=16, help="address space a model, in GB")
    parser.add_argument("--no-verify", action="store_true", help="structure only")
    parser.add_argument("--no-run", action="store_true", help="do not run the result forward and backward")
    parser.add_argument("--rows", type=Path, default=HOME / ".zoo" / "rows.jsonl")
    parser.add_argument("--table", type=Path, default=HOME / "docs" / "zoo.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
