import pytest
import torch
from torch import nn

from kdedge.models.heads import ExitHead


@pytest.mark.parametrize(
    ("inputs", "outputs", "downsamples", "pointwise"),
    [
        (16, 64, 2, [(16, 32), (32, 64)]),
        (64, 256, 1, [(64, 256)]),
        (128, 64, 2, [(128, 64), (64, 64)]),
        (64, 64, 0, []),
        (32, 64, 0, [(32, 64)]),
    ],
)
def test_exit_head_reaches_the_last_stage(inputs, outputs, downsamples, pointwise):
    head = ExitHead(inputs, outputs, downsamples, classes=10)
    sizes = []
    head.steps.register_forward_hook(lambda module, given, output: sizes.append(tuple(output.shape[1:])))

    embedding, logits = head(torch.randn(2, inputs, 8, 8))
    logits.sum().backward()

    assert sizes == [(outputs, 8 >> downsamples, 8 >> downsamples)]
    assert (embedding.shape, logits.shape) == ((2, outputs), (2, 10))
    assert [
        (conv.in_channels, conv.out_channels)
        for conv in head.modules()
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (1, 1)
    ] == pointwise
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_exit_head_without_attention_has_no_weights_for_it():
    with_eca, without = ExitHead(64, 64, 0, 10), ExitHead(64, 64, 0, 10, attention="none")

    assert set(with_eca.state_dict()) - set(without.state_dict()) == {"attention.conv.weight"}
