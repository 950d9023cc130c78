"""A detector's graph, as the exporter writes it, gives its outputs and no boxes."""

import numpy as np
import pytest
import torch
from detectors_alive import enliven

from kdedge.core.deployment import Export
from kdedge.export.onnx import run, simplify
from kdedge.export.trace import dims, trace
from kdedge.models.zoo import build_model

SHAPE = (3, 64, 64)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("retinanet", {"backbone": "resnet18", "channels": 16}),
        ("fcos", {"backbone": "resnet18", "channels": 64, "levels": "p3-p5"}),
        ("ssdlite", {"backbone": "mobilenet_v3_small", "width": 0.5}),
    ],
)
def test_exported_graph_gives_the_same_outputs_for_any_batch(name, options):
    torch.manual_seed(0)
    network = build_model(name, options, 3, SHAPE, "detect").eval()
    enliven(network, SHAPE)
    graph = simplify(trace(network, SHAPE, Export(dynamic_batch=True), ("logits",)), SHAPE)
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        expected = network(images)
    found = run(graph, images.numpy())[0]

    assert [dims(value) for value in graph.graph.output] == [["batch", *expected.shape[1:]]]
    assert expected.std(dim=1).min() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
