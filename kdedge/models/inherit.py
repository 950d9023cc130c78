"""Weights for a lightened network from the dense one that it was made of.

What was not rewritten is copied.  The rewritten convolutions are then filled in the order in which they run, each so
that from what really comes to it now it computes what the dense one computed (layer-wise least squares, as in
Y. He et al.: "Channel Pruning", ICCV 2017, arXiv:1707.06168, sec. 3.2):

    grouped    the weights of each group by least squares
    depthwise  the kernel that each input channel's kernels have in common (the rank-1 part of them; J. Guo et al.:
               "Network Decoupling", BMVC 2018, arXiv:1808.05517), then the pointwise weights by least squares.  The
               norm between starts with its mean three standard deviations above where the ReLU cuts, so that nearly
               everything passes.

One that runs on several maps, as those of a detector's heads do, is fitted on all of them.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.core.errors import ModelError
from kdedge.models.cost import eval_mode
from kdedge.models.lighten import Rewritten

HEADROOM = 3.0
ROWS = 2**15
"""Places of feature maps that a least-squares fit looks at."""
RIDGE = 1e-3
"""Of the mean square of what a fit is made from."""


@torch.no_grad()
def inherit(
    light: nn.Module, dense: nn.Module, plan: Iterable[Rewritten], images: Tensor, dense_images: Tensor | None = None
) -> None:
    """Give a lightened network what it can keep of the dense one's weights.

    Args:
        plan: what `lighten` returned.
        images: (N, C, H, W) as the lightened network will take them; a few hundred.
        dense_images: the same as the dense network takes them, where it was trained on other normalization.

    Raises:
        ModelError: the two are not the same network before lightening.
    """
    steps = {step.path: step.conv for step in plan}
    check_same_network(light, dense, steps)
    light.load_state_dict(rest(dense, steps), strict=False)
    training = light.training
    light.train()  # BN by the statistics of these images, which no longer are the dense network's
    for path, conv in steps.items():
        source, target = dense.get_submodule(path), light.get_submodule(path)
        assert isinstance(source, nn.Conv2d)
        with eval_mode(dense):
            wanted = joined(out for _, out in watched(dense, images if dense_images is None else dense_images, source))
        given = [taken for taken, _ in watched(light, images, target)]
        if conv == "depthwise":
            assert isinstance(target, nn.Sequential)
            fill_separable(target, source, given, wanted)
        else:
            fill_grouped(target, given, wanted)
    settle(light, images)
    light.train(training)


def check_same_network(light: nn.Module, dense: nn.Module, rewritten: Iterable[str]) -> None:
    """Raises ModelError unless the two differ in the rewritten convolutions alone."""
    paths = list(rewritten)
    mine, theirs = rest(light, paths), rest(dense, paths)
    if differing := sorted(key for key in mine.keys() | theirs.keys() if shape(mine, key) != shape(theirs, key)):
        raise ModelError(
            f"{type(light).__name__} cannot start from the weights of this {type(dense).__name__}",
            f"the two are not the same network before lightening: {', '.join(differing[:3])} differ",
            "give teacher and student the same name and options, or set lighten.init: random",
        )


def rest(network: nn.Module, rewritten: Iterable[str]) -> dict[str, Tensor]:
    inside = tuple(f"{path}." for path in rewritten)
    return {key: value for key, value in network.state_dict().items() if not key.startswith(inside)}


def shape(state: dict[str, Tensor], key: str) -> torch.Size | None:
    return state[key].shape if key in state else None


def watched(network: nn.Module, images: Tensor, module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """What goes into a module and comes out of it, each time that it runs, when the network sees the images."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = module.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    try:
        network(images)
    finally:
        handle.remove()
    return seen


def joined(maps: Iterable[Tensor]) -> Tensor:
    """(N, C, H, W) each -> (N, C, places of all)."""
    return torch.cat([feature.flatten(2) for feature in maps], dim=2)


def fill_grouped(light: nn.Module, given: list[Tensor], wanted: Tensor) -> None:
    """From the maps (N, I, H, W) that come to it and the places (N, O, places) that it should make of them all."""
    conv = light
    if isinstance(light, nn.Sequential):
        shuffle, conv = light.get_submodule("shuffle"), light.get_submodule("grouped")
        given = [shuffle(feature) for feature in given]
    assert isinstance(conv, nn.Conv2d)
    padded = [F.pad(feature, conv._reversed_padding_repeated_twice).chunk(conv.groups, dim=1) for feature in given]
    for group, (inputs, outputs) in enumerate(
        zip(zip(*padded, strict=True), wanted.chunk(conv.groups, dim=1), strict=True)
    ):
        patches = joined(
            F.unfold(part, conv.kernel_size, conv.dilation, 0, conv.stride) for part in inputs
        )  # (N, I k k, places)
        weight, bias = least_squares(patches, outputs)
        rows = slice(group * len(weight), (group + 1) * len(weight))
        conv.weight[rows] = weight.view_as(conv.weight[rows])
        if conv.bias is not None:
            conv.bias[rows] = bias


def fill_separable(light: nn.Sequential, dense: nn.Conv2d, given: list[Tensor], wanted: Tensor) -> None:
    depthwise, norm, _, pointwise = light
    assert isinstance(depthwise, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d | nn.GroupNorm)
    assert isinstance(pointwise, nn.Conv2d)
    kernels = dense.weight.transpose(0, 1).flatten(2)  # (I, O, k k)
    common = torch.linalg.svd(kernels, full_matrices=False).Vh[:, 0]
    depthwise.weight.copy_(common.view_as(depthwise.weight))
    norm.weight.fill_(1)
    norm.bias.fill_(HEADROOM)
    weight, bias = least_squares(joined(norm(depthwise(feature)).relu() for feature in given), wanted)
    pointwise.weight.copy_(weight[:, :, None, None])
    if pointwise.bias is not None:
        pointwise.bias.copy_(bias)


def least_squares(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (O, I) and bias (O,) with which `given` (N, I, places) comes nearest to `wanted` (N, O, places)."""
    places = given.shape[0] * given.shape[2]
    some = torch.linspace(0, places - 1, min(ROWS, places), dtype=torch.float64).long()
    image, place = (part.to(given.device) for part in (some // given.shape[2], some % given.shape[2]))
    x, y = (part[image, :, place].cpu().double() for part in (given, wanted))  # not every accelerator has doubles
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - x_mean, y - y_mean
    gram = x.T @ x
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + 1e-12)
    weight = torch.linalg.solve(gram, x.T @ y).T
    return weight.to(given), (y_mean - weight @ x_mean).to(given)


def settle(light: nn.Module, images: Tensor) -> None:
    """Take the BN statistics of these images for the running ones."""
    norms = [module for module in light.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over batches
    light(images)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
