"""Two models measured in turns over SSH, with a real server on this machine."""

import shutil

from kdedge.profile.targets import parse_target


def test_both_models_are_sent_and_measured_over_there(device, linear, tmp_path):
    new = linear()
    base = tmp_path / "other/base.onnx"
    base.parent.mkdir()
    shutil.copy(new, base)
    one = {"threads": 1}
    request = {"mode": "paired", "backend": "ort", "model": str(new), "options": one, "batch": 2, "seconds": 0.02}
    request |= {"base": str(base), "base_backend": "ort", "base_options": one, "warmup_cap": 0.02}
    with parse_target(device.url()) as target:
        reply = target.run(request)
    assert reply["rounds"] >= 3
    assert reply["ratio"] > 0
