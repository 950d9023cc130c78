import pytest
import torch

from kdedge.distill.memory import is_out_of_memory, largest_fit, memory_error

CPU_TEXT = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
WINDOWS_TEXT = "DefaultCPUAllocator: not enough memory: you tried to allocate 4000000000000 bytes."


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (MemoryError(), True),
        (RuntimeError(CPU_TEXT), True),
        (RuntimeError(WINDOWS_TEXT), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("not enough values to unpack"), False),
    ],
)
def test_is_out_of_memory_knows_every_form_of_it(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_is_out_of_memory_knows_what_this_torch_really_raises() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_largest_fit_halves_until_a_batch_runs() -> None:
    tried = []

    def attempt(batch: int) -> None:
        tried.append(batch)
        if batch > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert largest_fit(attempt, 100) == 12
    assert tried == [50, 25, 12]


def test_largest_fit_gives_up_below_two() -> None:
    def attempt(_: int) -> None:
        raise MemoryError

    assert largest_fit(attempt, 9) is None
    assert largest_fit(attempt, 3) is None


def test_largest_fit_does_not_hide_another_error() -> None:
    def attempt(_: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        largest_fit(attempt, 8)


def test_memory_error_names_the_line_to_type() -> None:
    assert str(memory_error("student resnet8", 64, 16, "phases.1")) == (
        "student resnet8: out of memory: a batch of 64 does not fit; one of 16 does\n  --set phases.1.batch=16"
    )
    assert "a smaller student" in str(memory_error("student resnet8", 64, None, "phases.1"))
