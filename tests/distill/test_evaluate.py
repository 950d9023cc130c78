import pytest
import torch
from torch import nn

from kdedge.data.sets import Dataset, FolderSet
from kdedge.distill.evaluate import accuracy, batch_size, predict

CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Knows the classes of the test's data set from the mean of the normalized image."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, affine=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level = (self.norm(images).mean(dim=(1, 2, 3)) * 0.25 + 0.5) * 255
        return -(level[:, None] - torch.tensor([32.0, 96.0, 160.0, 224.0])).abs()


def test_accuracy_is_a_share() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert accuracy(logits, torch.tensor([0, 0, 0, 1])) == 0.75


def test_accuracy_is_the_exact_fraction_that_a_budget_names() -> None:
    assert accuracy(torch.eye(20), torch.tensor([1, *range(1, 20)])) == 0.95


@pytest.mark.parametrize(("side", "expected"), [(8, 500), (32, 500), (224, 55), (4096, 1)])
def test_batch_of_large_images_is_smaller(side: int, expected: int) -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    assert batch_size(FolderSet((), nothing, nothing, side)) == expected  # 2**23 values, of 3 * side * side an image


def test_predict_normalizes_and_keeps_the_order_of_the_set(dataset: Dataset) -> None:
    logits, labels = predict(Brightness(), dataset.test, dataset.normalize, CPU)
    assert torch.equal(labels, dataset.test.labels)
    assert logits.shape == (32, 4)
    assert accuracy(logits, labels) == 1


def test_predict_asks_in_eval_mode_and_puts_the_mode_back(dataset: Dataset) -> None:
    network = Brightness().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    predict(network, dataset.test, dataset.normalize, CPU)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not predict(network.eval(), dataset.test, dataset.normalize, CPU)[0].requires_grad
    assert not network.training
