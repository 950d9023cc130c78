"""What the page says of int8."""

from collections.abc import Callable

import pytest

from kdedge.core.precision import Fragility
from kdedge.export.layout import LAYOUTS
from kdedge.report.html import ReportData
from kdedge.report.view import notes, warnings


@pytest.mark.parametrize(("drop", "fragile"), [(0.02, False), (0.05, True)])
def test_fragile_student_is_a_warning_and_a_sound_one_a_note(
    run: Callable[..., ReportData], drop: float, fragile: bool
) -> None:
    data = run()
    assert data.export
    found = Fragility(images=1000, drop=drop, baseline_drop=0.01, worse=60, better=20, p_value=1e-5, limit=0.03)
    export = data.export.model_copy(update={"fragility": found, "layout": LAYOUTS["arm"]})
    sentence = f"int8 costs the distilled student {100 * drop:.2f} points and the undistilled one 1.00: "
    warned = [line for line in warnings(data.training, export, [], None) if line.startswith(sentence)]
    told = [line for line in notes(export, []) if line.startswith(sentence)]
    assert (len(warned), len(told)) == ((1, 0) if fragile else (0, 1))
    assert "int8 layout: asymmetric int8 activations, weights of 8 bits; Arm, which multiplies signed by signed" in (
        notes(export, [])
    )
