"""Whether a loss and its gradient agree."""

from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor


def assert_gradient(function: Callable[..., Tensor], *inputs: Tensor) -> None:
    """The gradient of a scalar by each of the inputs is that of its finite differences, all in float64.

    Losses compute in float32, which is too coarse to tell; so for once their `.float()` is `.double()`.  Layers that
    the function has of its own are to be made double by the caller.
    """
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    with patch.object(Tensor, "float", Tensor.double):
        result = function(*exact)
        assert result.dtype == torch.float64, "something else than .float() makes it float32"
        gradients = torch.autograd.grad(result, exact)
        assert all(gradient.abs().max() > 1e-9 for gradient in gradients), "the gradient is zero"
        assert torch.autograd.gradcheck(function, exact)
