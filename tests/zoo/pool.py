"""Processes with a time and a memory limit each, forked from one that has imported everything already.

What a model does to its process, it does to that process alone: running out of time or memory is a row of the table.
"""

import multiprocessing
import resource
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

Row = dict[str, Any]


def rows(jobs: Iterable[Any], work: Callable[[Any], Row], workers: int, seconds: float, gigabytes: float
         ) -> Iterator[tuple[Any, Row]]:
    """``work(job)`` for each job in a process of its own, ``workers`` at a time, in the order in which they finish."""
    fork = multiprocessing.get_context("fork")
    waiting, running = iter(jobs), {}
    exhausted = False
    while running or not exhausted:
        while len(running) < workers and not exhausted:
            job = next(waiting, None)
            if job is None:
                exhausted = True
                break
            here, there = fork.Pipe(duplex=False)
            process = fork.Process(target=_child, args=(there, work, job, gigabytes), daemon=True)
            process.start()
            there.close()
            running[here] = (process, job, time.monotonic() + seconds)
        wait(list(running), timeout=1)
        for pipe in list(running):
            process, job, deadline = running[pipe]
            row = _outcome(pipe, process, time.monotonic() > deadline, seconds)
            if row is not None:
                del running[pipe]
                yield job, row


def _outcome(pipe: Connection, process: Any, late: bool, seconds: float) -> Row | None:
    """The row that a process sent or that its death makes; None while it runs."""
    try:
        if pipe.poll():
            row = pipe.recv()
            process.join()
            return row
    except EOFError:
        process.join()
        return {"failed": f"the process ended with exit code {process.exitcode}"}
    if late:
        process.kill()
        process.join()
        return {"failed": f"more than {seconds:g} s"}
    return None


def _child(pipe: Connection, work: Callable[[Any], Row], job: Any, gigabytes: float) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 2**30),) * 2)
    start = time.perf_counter()
    try:
        row = work(job)
    except MemoryError:
        row = {"failed": f"more than {gigabytes:g} GB"}
    except Exception as error:
        where = traceback.format_exc().strip().splitlines()
        row = {"failed": f"{type(error).__name__}: {error}"[:600], "traceback": where[-8:]}
    pipe.send(row | {"wall": round(time.perf_counter() - start, 2)})
