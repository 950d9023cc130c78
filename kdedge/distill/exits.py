"""A student together with its early exits, as one network that runs no further than the exits asked of it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kdedge.distill.base import Method, View
from kdedge.models.cost import Cost, Shape, cost, eval_mode, run_once
from kdedge.models.features import FeaturePoint, FeatureTap, bare


class Branched(nn.Module):
    """Images (N, C, H, W) -> logits (N, classes): one tensor, or a tuple where there is more than one.

    Args:
        method: the one that trained the exits.
        points: the student's feature points, the last of which stands for its own classifier.
        stages: those whose classifiers are wanted, in order.
        features: stages whose feature maps come after the logits.
    """

    def __init__(
        self,
        student: nn.Module,
        method: Method,
        points: dict[str, FeaturePoint],
        stages: Sequence[str],
        features: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.student, self.method = student, method
        self.points, self.stages, self.features = points, tuple(stages), tuple(features)
        self.last = list(points)[-1]

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        tapped = {name: self.points[name] for name in (*self.stages, *self.features) if name != self.last}
        with FeatureTap(self.student, tapped) as tap:
            logits = self.student(images) if self.last in self.stages else self.run_to_exit(images)
            features = tap.features
        answers = {**self.method.exits(View(logits, features)), self.last: logits}
        found = [answers[name] for name in self.stages] + [features[name] for name in self.features]
        return found[0] if len(found) == 1 else tuple(found)

    def run_to_exit(self, images: Tensor) -> Tensor:
        """Run the student up to the last stage that is wanted; no logits come of it."""
        end = bare(self.student).get_submodule(self.points[self.stages[-1]].module)
        handle = end.register_forward_hook(stop)
        try:
            self.student(images)
        except Reached:
            pass
        finally:
            handle.remove()
        return images.new_empty(0)

    def cost(self, image_shape: Shape) -> Cost:
        """Of what is run for one image; layers behind the last exit that is wanted are not."""
        whole = cost(self, image_shape)
        used = used_parameters(self, image_shape)
        held = sum(tensor.numel() * tensor.element_size() for tensor in used)
        return Cost(sum(tensor.numel() for tensor in used), whole.macs, held)


class Reached(Exception):
    """The forward pass has come as far as it is wanted."""


def stop(*_: object) -> None:
    """Ends the forward pass; one that is traced goes on, and whoever traces leaves out what nothing reads."""
    if not torch.compiler.is_compiling():
        raise Reached


def used_parameters(network: nn.Module, image_shape: Shape) -> list[nn.Parameter]:
    """Those that what the network puts out depends on, whether they train or not."""
    parameters = dict(network.named_parameters())
    inputs = {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}
    images = torch.zeros(1, *image_shape, device=next(iter(inputs.values())).device)
    with eval_mode(network), torch.enable_grad():
        answer = functional_call(network, inputs, (images,))
        total = sum(part.sum() for part in (answer if isinstance(answer, tuple) else (answer,)))
        gradients = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)
    return [parameters[name] for name, gradient in zip(inputs, gradients, strict=True) if gradient is not None]


def exit_stages(student: nn.Module, method: Method, points: dict[str, FeaturePoint], image_shape: Shape) -> list[str]:
    """Stages of the early exits that a method trains, in the student's order."""
    with FeatureTap(student, {name: points[name] for name in method.student_features}) as tap, eval_mode(method):
        logits = run_once(student, image_shape)
        with torch.no_grad():
            exits = method.exits(View(logits, tap.features))
    return [stage for stage in list(points)[:-1] if stage in exits]
