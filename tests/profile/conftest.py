from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sshd import HOW, SSHD, Server


@pytest.fixture
def linear(tmp_path):
    """linear(batch="n") -> an ONNX file of y = x W with W = [[1, 2], [3, 4], [5, 6]]; x is (batch, 3)."""

    def make(batch: str | int = "n") -> Path:
        weight = numpy_helper.from_array(np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32), "w")
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "linear", [x], [y], [weight])
        path = tmp_path / "linear.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path

    return make


@pytest.fixture
def serve(needs, tmp_path, monkeypatch):
    """serve(*lines of sshd_config) -> a device that SSH reaches, in a folder of its own."""
    needs(SSHD, HOW)
    servers = []

    def start(*settings: str) -> Server:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        servers.append(Server(folder, *settings))
        monkeypatch.setenv("KDEDGE_SSH_COMMAND", servers[-1].command)
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def device(serve):
    return serve()
