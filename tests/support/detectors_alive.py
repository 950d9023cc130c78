"""Fresh detectors, whose heads give next to nothing, made to answer."""

import torch
from torch import nn


def enliven(network: nn.Module, shape: tuple[int, int, int]) -> None:
    """He weights in the heads, and BN by statistics of real activations, so that outputs differ from place to place."""
    for module in network.head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    training = network.training
    network.train()
    with torch.no_grad():
        network.head(list(network.backbone(torch.randn(16, *shape)).values()))
    network.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
