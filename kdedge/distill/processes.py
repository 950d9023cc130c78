"""Training in several processes of this machine that end as one: with the first error of any, or together."""

import os
import pickle
import threading
from collections.abc import Callable
from multiprocessing import SimpleQueue, active_children, parent_process
from pathlib import Path
from typing import Any, cast

from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessRaisedException

from kdedge.core.errors import KdedgeError
from kdedge.models.code import CONSENT, load_again


def parallel(accelerator: str) -> DDPStrategy:
    """Processes that are never forked from this one, whose threads and CUDA context they would wait for in vain."""
    return DDPStrategy(start_method="forkserver" if accelerator == "cpu" else "spawn")


def launch(fabric: Fabric, function: Callable[..., None], *arguments: Any) -> None:
    """Run `function(fabric, *arguments)` once for each device.

    Raises:
        KdedgeError: what the function raised in one of the processes.
    """
    multiprocessing.set_forkserver_preload(["kdedge.distill.trainer"])
    work = pickle.dumps((function, arguments))  # as bytes: each process gets tensors of its own, not shared ones
    files = list(CONSENT.modules.values())
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    try:
        fabric.launch(cast(Any, reporting), work, errors, files)
    except ProcessRaisedException:
        if errors.empty():
            raise
        raise errors.get() from None
    finally:
        for process in active_children():  # left when this process was interrupted, and would be waited for
            process.terminate()


def reporting(fabric: Fabric, work: bytes, errors: "SimpleQueue[KdedgeError]", files: list[Path]) -> None:
    """What each process runs: an error that is the user's crosses as it is, not as a traceback."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    load_again(files)
    function, arguments = pickle.loads(work)  # noqa: S301  (what the starting process has just written)
    try:
        function(fabric, *arguments)
    except KdedgeError as error:
        errors.put(error)
        raise


def end_with_parent() -> None:
    """Without the one that started it, a process would train on unseen, in a folder that is no longer locked."""
    parent = parent_process()
    if parent:
        parent.join()
        os._exit(1)
