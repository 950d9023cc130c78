import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kdedge.core.errors import ModelError
from kdedge.models.weights import load_weights, save_weights
from kdedge.models.zoo import build_model

TEACHER = Path(os.environ.get("KDEDGE_DATA", "")) / "cifar_teachers" / "resnet56-4bfd9763.th"
IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def small(seed=0, classes=10, **options):
    torch.manual_seed(seed)
    return build_model("resnet8", {"width": 0.5, **options}, classes, (1, 8, 8))


def same(left, right):
    return all(torch.equal(tensor, right.state_dict()[name]) for name, tensor in left.state_dict().items())


def test_saved_weights_load_bit_for_bit(tmp_path):
    model, other = small(0).to(memory_format=torch.channels_last), small(1)
    model.train()(torch.randn(4, 1, 8, 8))
    assert not same(model, other)

    save_weights(model, tmp_path / "model.safetensors")
    load_weights(other, tmp_path / "model.safetensors")

    assert same(model, other)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("nested", [None, "state_dict", "model", "net", "model_state"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_checkpoints_of_others_load_nested_and_prefixed(tmp_path, nested, prefix):
    model, other = small(0), small(1)
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, nested: state} if nested else state, tmp_path / "model.pt")

    load_weights(other, tmp_path / "model.pt")

    assert same(model, other)


def test_checkpoint_may_lack_the_step_counters_of_bn(tmp_path):
    model, other = small(0), small(1)
    torch.save(
        {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}, tmp_path / "old.pt"
    )

    load_weights(other, tmp_path / "old.pt")

    assert same(model, other)


def test_checkpoint_that_does_not_fit_is_listed(tmp_path):
    state = small(classes=7).state_dict()
    state["extra"] = state.pop("conv1.weight")
    torch.save(state, tmp_path / "other.pt")

    with pytest.raises(ModelError) as caught:
        load_weights(small(), tmp_path / "other.pt")

    assert str(caught.value).splitlines()[:4] == [
        f"{tmp_path / 'other.pt'} does not fit ResNet: its tensors differ from the network's",
        "  missing: conv1.weight",
        "  unexpected: extra",
        "  of another shape: linear.weight 7x32, not 10x32, linear.bias 7, not 10",
    ]


def test_long_lists_of_tensors_end_in_a_count(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    model = small()
    needed = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]

    with pytest.raises(ModelError, match=f" and {len(needed) - 10} more\n"):
        load_weights(model, tmp_path / "other.pt")


def test_weights_that_do_not_fit_leave_the_network_alone(tmp_path):
    model, untouched = small(0), small(0)
    save_weights(small(1, classes=7), tmp_path / "other.safetensors")

    with pytest.raises(ModelError):
        load_weights(model, tmp_path / "other.safetensors")

    assert same(model, untouched)


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("exploited",)


def test_pickled_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": small().state_dict(), "args": Exploit()}, "evil.pt")

    with pytest.raises(ModelError, match=r"evil.pt holds more than weights: reading it would run .*mkdir"):
        load_weights(small(), Path("evil.pt"))
    assert not Path("exploited").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".legacy.pt"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.99])
def test_truncated_file_is_named(tmp_path, suffix, keep):
    path = tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        save_weights(small(), path)
    else:
        torch.save(small().state_dict(), path, _use_new_zipfile_serialization=suffix == ".pt")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])

    with pytest.raises(ModelError, match=rf"cannot read .*model{suffix}"):
        load_weights(small(), path)


@pytest.mark.parametrize("content", [b"not a checkpoint", pickle.dumps([1, 2]), b"<html>404</html>"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)

    with pytest.raises(ModelError, match=r"cannot read .*model.pt: truncated, or not a checkpoint"):
        load_weights(small(), tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [({"weights": {"a": torch.zeros(1)}}, "its keys are weights"), ([1], "it holds a list"), ({}, "its keys are none")],
)
def test_checkpoint_without_state_dict_says_what_it_holds(tmp_path, content, message):
    torch.save(content, tmp_path / "model.pt")

    with pytest.raises(ModelError, match=message):
        load_weights(small(), tmp_path / "model.pt")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no checkpoint .*nowhere.pt"):
        load_weights(small(), tmp_path / "nowhere.pt")


def resnet56_by_hand(state, images):
    """The published network (shortcut A, batch statistics frozen), from its tensors alone."""

    def norm(name, x):
        mean, var, weight, bias = (
            state[f"module.{name}.{key}"].view(-1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = norm("bn1", F.conv2d(images, state["module.conv1.weight"], padding=1)).clamp(min=0)
    for stage in (1, 2, 3):
        for block in range(9):
            stride = 2 if stage > 1 and block == 0 else 1
            path = f"layer{stage}.{block}"
            out = norm(
                f"{path}.bn1", F.conv2d(x, state[f"module.{path}.conv1.weight"], stride=stride, padding=1)
            ).clamp(min=0)
            out = norm(f"{path}.bn2", F.conv2d(out, state[f"module.{path}.conv2.weight"], padding=1))
            if stride == 2:
                zeros = torch.zeros_like(x[:, : x.shape[1] // 2, ::2, ::2])
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
            x = (out + x).clamp(min=0)
    return x.mean((2, 3)) @ state["module.linear.weight"].T + state["module.linear.bias"]


@pytest.fixture
def teacher(needs):
    needs(TEACHER.is_file(), "set KDEDGE_DATA to a folder with cifar_teachers/resnet56-4bfd9763.th")
    model = build_model("resnet56", {"shortcut": "A"}, 10, (3, 32, 32))
    load_weights(model, TEACHER)
    return model.eval()


def test_public_resnet56_computes_what_its_tensors_say(teacher):
    state = torch.load(TEACHER, map_location="cpu", weights_only=True)["state_dict"]
    images = torch.randn(4, 3, 32, 32, generator=torch.manual_seed(0))

    with torch.no_grad():
        torch.testing.assert_close(teacher(images), resnet56_by_hand(state, images), rtol=1e-4, atol=1e-4)


def test_public_resnet56_recognizes_cifar10(teacher, needs):
    path = TEACHER.parents[1] / "cifar10.npz"
    needs(path.is_file(), "set KDEDGE_DATA to a folder with cifar10.npz")
    with np.load(path) as data:
        images = torch.from_numpy(data["test_images"][:500]).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy(data["test_labels"][:500].astype(np.int64))

    with torch.inference_mode():
        top1 = (teacher((images - IMAGENET_MEAN) / IMAGENET_STD).argmax(1) == labels).float().mean().item()
    assert top1 > 0.90  # 93.39 % of the whole test set
