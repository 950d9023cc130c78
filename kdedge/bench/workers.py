"""Pieces of work in processes of their own: each starts fresh, and none outlives this one."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context, set_forkserver_preload
from typing import TypeVar

import torch

from kdedge.core import console
from kdedge.core.errors import KdedgeError
from kdedge.distill.processes import end_with_parent
from kdedge.models import code

A = TypeVar("A")
R = TypeVar("R")
PRELOAD = ["kdedge.bench.cells"]


def perform_all(
    function: Callable[[A], R], work: Sequence[A], jobs: int, done: Callable[[A, R], None] = lambda *_: None
) -> list[R | KdedgeError]:
    """The function's results in order, `jobs` at a time; a user's error stands where its result would."""
    set_forkserver_preload(PRELOAD)
    context = get_context("spawn" if torch.cuda.is_available() else "forkserver")
    pool = ProcessPoolExecutor(jobs, context, initializer=begin, initargs=(code.CONSENT.given,), max_tasks_per_child=1)
    try:
        futures: dict[Future[R], A] = {pool.submit(function, one): one for one in work}
        for future in as_completed(futures):
            if not isinstance(future.exception(), KdedgeError):
                done(futures[future], future.result())
        pool.shutdown()
        return [
            error if isinstance(error := future.exception(), KdedgeError) else future.result() for future in futures
        ]
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in active_children():
            process.terminate()
        raise


def begin(allow_code: bool) -> None:
    """What each process starts with: it is silent, ends with the one that started it, and may do what that one may."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    console.OUT.configure(quiet=True)
    if allow_code:
        code.allow_code()
