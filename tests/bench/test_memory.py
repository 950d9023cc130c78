"""What a piece of work takes of memory, whatever was taken and given back before."""

import torch

from kdedge.bench.memory import RESIDENT, PeakMemory

MIB = 2**20


def test_peak_is_what_was_taken_since_even_if_it_is_given_back() -> None:
    before = torch.ones(128 * MIB, dtype=torch.uint8)
    del before
    peak = PeakMemory(torch.device("cpu"))
    taken = torch.ones(64 * MIB, dtype=torch.uint8)
    del taken
    memory = peak.read()
    assert 60 * MIB < memory.bytes < 80 * MIB
    assert memory.how == RESIDENT
