"""Out of memory, said in a way that helps: with a batch that fits."""

import gc
from collections.abc import Callable

import torch

from kdedge.core.errors import TrainingError

CPU_WORDS = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """True for the accelerator's error and for the CPU allocator's, which has no class of its own."""
    if isinstance(error, RuntimeError) and any(words in str(error) for words in CPU_WORDS):
        return True
    return isinstance(error, torch.OutOfMemoryError | MemoryError)


def largest_fit(try_batch: Callable[[int], object], batch: int) -> int | None:
    """The largest halving of `batch` that runs, down to 2; None when none does."""
    while batch >= 4:
        batch //= 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            try_batch(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            return batch
    return None


def memory_error(label: str, batch: int, fits: int | None, setting: str) -> TrainingError:
    if fits is None:
        return TrainingError(
            f"{label}: out of memory",
            f"a batch of {batch} does not fit, nor does one of 2",
            "take a smaller student, teacher or image size",
        )
    return TrainingError(
        f"{label}: out of memory",
        f"a batch of {batch} does not fit; one of {fits} does",
        f"--set {setting}.batch={fits}",
    )
