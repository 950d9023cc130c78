"""What a run knows of its early exits: made up, but worked out by the functions that make the real record."""

from typing import Any

import numpy as np

from kdedge.core.exits import ExitQuality, ExitsReport, MeasuredCascade, WithoutExits
from kdedge.core.stats import Answers, Costs, exit_curve, operating_point

MACS, LATENCY, TOP1 = (3.1e6, 6.2e6, 9.4e6), (0.11, 0.21, 0.31), (0.712, 0.848, 0.902)


def made_up(seed: int, images: int) -> Answers:
    random = np.random.default_rng(seed)
    ease = random.random(images)
    right = np.stack([ease < top1 for top1 in TOP1])
    confidence = np.stack([1 / (1 + np.exp(-8 * (top1 - ease) - random.normal(0, 1.5, images))) for top1 in TOP1])
    return Answers(np.clip(confidence, 0.1, 1), right)


def early_exits(**changes: Any) -> ExitsReport:
    costs = Costs(np.array(MACS), np.array(LATENCY))
    validation, test = made_up(0, 5000), made_up(1, 10000)
    parts = {
        "precision": "fp32",
        "backend": "ort",
        "threads": 2,
        "exits": [
            ExitQuality(
                name=f"{k + 1}/3",
                stage=f"stage{k + 1}",
                params=20_000 * (k + 1),
                macs=int(MACS[k]),
                latency_ms=LATENCY[k],
                validation_top1=float(validation.right[k].mean()),
                test_top1=float(test.right[k].mean()),
            )
            for k in range(3)
        ],
        "curve": exit_curve(validation, costs),
        "wanted": 0.89,
        "validation_images": 5000,
        "test_images": 10000,
        "validation": operating_point(validation, costs, 0.8),
        "test": operating_point(test, costs, 0.8),
        "measured": MeasuredCascade(
            images=1000,
            processes=5,
            top1=0.89,
            mean_ms=0.199,
            median_ms=0.187,
            predicted_ms=0.195,
            shares=[0.5, 0.3, 0.2],
        ),
        "without": WithoutExits(params=58_000, macs=8_700_000, latency_ms=0.28, mean_ms=0.29),
        "notes": ["stage 1: the machine was busy"],
    }
    return ExitsReport(**(parts | changes))
