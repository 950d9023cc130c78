"""Quantization-aware training: the student computes as int8 will, while its methods and teachers go on as they were.

B. Jacob et al.: "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR
2018, arXiv:1712.05877.

Rounded in the forward pass are the weights of every convolution and fully connected layer, one scale a channel, and
what these layers take, one range a tensor; gradients pass as if nothing were rounded.  Batch norms keep their
statistics: folded into a convolution, as export does, they scale its channels and leave its weights' codes as they are.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kdedge.core.errors import require
from kdedge.core.training import Quantize

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
MEMORY = 0.05
"""Share of a range that each batch renews."""
LOW, HIGH = ".activation_post_process.min_val", ".activation_post_process.max_val"

Ranges = dict[str, tuple[float, float]]
"""What each layer takes, by its path."""


class FakeInt8(nn.Module):
    """A student that computes as in int8.  The student is not part of it: it has no weights, only ranges.

    Raises:
        MissingTool: torchao is not installed.
    """

    def __init__(self, student: nn.Module, how: Quantize) -> None:
        super().__init__()
        self._student = [student]  # in a list, so that it is not registered
        self._layers = {path: module for path, module in student.named_modules() if isinstance(module, LAYERS)}
        self.inputs = nn.ModuleDict({key(path): fake_activation(how) for path in self._layers})
        self.weights = nn.ModuleDict({key(path): fake_weight(how, layer) for path, layer in self._layers.items()})

    def forward(self, images: Tensor) -> Tensor:
        rounded = {f"{path}.weight": self.weights[key(path)](layer.weight) for path, layer in self._layers.items()}
        with self.rounding():
            logits: Tensor = functional_call(self._student[0], rounded, (images,), tie_weights=False)
        return logits

    @contextmanager
    def rounding(self) -> Iterator[None]:
        """What the layers take is rounded as long as this lasts."""

        def rounds(path: str) -> Any:
            def hook(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
                taken, *rest = inputs or (named.pop("input"),)
                return (self.inputs[key(path)](taken.float()), *rest), named

            return hook

        hooks = [
            layer.register_forward_pre_hook(rounds(path), with_kwargs=True) for path, layer in self._layers.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def train(self, mode: bool = True) -> "FakeInt8":
        """The student's mode as well; ranges follow the images in training alone, batch norms' statistics never."""
        super().train(mode)
        self._student[0].train(mode)
        for module in self._student[0].modules():
            if isinstance(module, NORMS):
                module.eval()
        self.fakes("enable_observer", mode)
        return self

    def fakes(self, change: str, *arguments: bool) -> None:
        """Call a method of what rounds each layer's input."""
        for fake in self.inputs.values():
            getattr(fake, change)(*arguments)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """The first ranges: what the layers take of these images, nothing rounded."""
        self.eval()
        self.fakes("enable_observer")
        self.fakes("disable_fake_quant")
        with self.rounding():
            for images in batches:
                self._student[0](images)
        self.fakes("enable_fake_quant")


def key(path: str) -> str:
    """Names of modules in a ModuleDict have no dots."""
    return path.replace(".", "/")


def fake_activation(how: Quantize) -> nn.Module:
    torchao = pt2e()
    unsigned = how.activations == "uint8"
    fake: nn.Module = torchao.FakeQuantize(
        observer=torchao.MovingAverageMinMaxObserver,
        averaging_constant=MEMORY,
        dtype=torch.uint8 if unsigned else torch.int8,
        quant_min=0 if unsigned else -128 + how.symmetric,
        quant_max=255 if unsigned else 127,
        qscheme=torch.per_tensor_symmetric if how.symmetric else torch.per_tensor_affine,
    )
    return fake


def fake_weight(how: Quantize, layer: nn.Module) -> nn.Module:
    """Its range is that of the weights as they are, with no memory."""
    torchao = pt2e()
    largest = 64 if how.reduce_range else 127
    fake: nn.Module = torchao.FakeQuantize(
        observer=torchao.MovingAveragePerChannelMinMaxObserver,
        averaging_constant=1.0,
        dtype=torch.int8,
        quant_min=-largest,
        quant_max=largest,
        qscheme=torch.per_channel_symmetric,
        ch_axis=1 if isinstance(layer, nn.ConvTranspose2d) else 0,
    )
    return fake


def pt2e() -> Any:
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)  # it remarks on torchao's code, not on ours
    return require("torchao.quantization.pt2e", "qat", "a phase with quantize")


def learned_ranges(state: dict[str, Tensor]) -> Ranges:
    """From the state of a `FakeInt8`; without layers that saw no image."""
    found = {}
    for name, low in state.items():
        if name.startswith("inputs.") and name.endswith(LOW) and low.isfinite():
            stem = name.removesuffix(LOW)
            found[stem.removeprefix("inputs.").replace("/", ".")] = float(low), float(state[stem + HIGH])
    return found
