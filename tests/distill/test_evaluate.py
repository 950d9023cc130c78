import torch
from torch import nn

from kdedge.data.build import Dataset
from kdedge.distill.evaluate import accuracy, predict

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
