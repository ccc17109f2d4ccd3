"""One fit in a process of its own: its answer, its seconds, its memory, and a limit on its time."""

from __future__ import annotations

import functools
import multiprocessing
import os
import resource
import sys
import time
import traceback
import warnings
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import NamedTuple

from _answers import Answer
from _methods import make_methods
from _sets import BenchmarkSet


class Measured(NamedTuple):
    """What came of one fit."""

    answer: Answer | None
    seconds: float
    megabytes: float
    note: str  # why there is no answer; empty where there is one


def measure(name: str, data: BenchmarkSet, seed: int, *, limit: float, iterations: int) -> Measured:
    """Run a method in a fresh process and stop it after ``limit`` seconds.

    Memory is the growth of the process's peak resident size (``getrusage``) over that before the fit: imports are not
    counted, temporary arrays of every library are.
    """
    context = _server()
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(theirs, name, data, seed, iterations))
    child.start()
    theirs.close()
    began = time.perf_counter()
    try:
        ready = wait([ours, child.sentinel], timeout=limit + 10.0)  # ten more for the start of the process
        if ours in ready or ours.poll():
            return ours.recv()
        note = "the process died, perhaps for lack of memory" if ready else "too slow"
    except EOFError:
        note = "the process died, perhaps for lack of memory"
    finally:
        child.kill()
        child.join()
    return Measured(None, time.perf_counter() - began, float("nan"), note)


@functools.cache
def _server() -> ForkServerContext:
    """The process that fits are forked from. It imports everything once, and finds this folder by the environment."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["_measure"])
    return context


def _work(pipe: Connection, name: str, data: BenchmarkSet, seed: int, iterations: int) -> None:
    warnings.simplefilter("ignore")
    before = _peak()
    began = time.perf_counter()
    try:
        answer, note = make_methods(iterations)[name](data, seed), ""
    except ImportError as error:
        answer, note = None, f"{error.name} is not installed"
    except Exception as error:  # a method that fails is a line of the table, not the end of it
        traceback.print_exc(file=sys.stderr)
        answer, note = None, f"failed: {type(error).__name__}"
    pipe.send(Measured(answer, time.perf_counter() - began, _peak() - before, note))
    pipe.close()


def _peak() -> float:
    """Peak resident size of this process in MB."""
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
