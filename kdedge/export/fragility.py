"""Whether distillation made a student fragile: what int8 costs it beside what it costs the same student undistilled.

Distilled students have been seen to lose far more in int8 than their undistilled twins (lightly-ai/lightly-train#500).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdedge.core.precision import Fragility
from kdedge.core.significance import sign_test
from kdedge.export.parity import Labels, Logits, judged


class Pair(NamedTuple):
    """One network's logits (N, classes) in fp32 and in int8, of the same images."""

    fp32: Logits
    int8: Logits


def fragility(student: Pair, baseline: Pair, labels: Labels, limit: float) -> Fragility:
    """Args:
    limit: top-1 that the distilled student may lose more, as a fraction.
    """
    mine, other = costs(student, labels), costs(baseline, labels)
    worse, better = int((mine > other).sum()), int((mine < other).sum())
    return Fragility(
        images=len(labels),
        drop=float(mine.mean()),
        baseline_drop=float(other.mean()),
        worse=worse,
        better=better,
        p_value=sign_test(worse, better),
        limit=limit,
    )


def costs(pair: Pair, labels: Labels) -> NDArray[np.int64]:
    """(N,): 1 where int8 makes a right answer wrong, -1 where a wrong one right, 0 elsewhere."""
    before, after = ((judged(logits, labels).argmax(axis=1) == labels).astype(np.int64) for logits in pair)
    return np.asarray(before - after)
