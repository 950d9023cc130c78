import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from kdedge.distill.average import moving_average


class Kept(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("labels", torch.tensor([5, -1]))
        self.register_buffer("chosen", torch.tensor([True, False]))


def test_moving_average_blends_weights_and_keeps_the_last_whole_numbers():
    """0.9 x 1 + 0.1 x 3 = 1.2; a blend of the labels 5 and 7 would be cut to 5."""
    model = Kept()
    average = AveragedModel(model, multi_avg_fn=moving_average(0.9), use_buffers=True)
    for weight, label, chosen in ((1.0, 5, True), (3.0, 7, False)):
        with torch.no_grad():
            model.weight.fill_(weight)
        model.labels[0] = label
        model.chosen[0] = chosen
        average.update_parameters(model)
    torch.testing.assert_close(average.module.weight, torch.tensor([1.2, 1.2]))
    assert average.module.labels.tolist() == [7, -1]
    assert average.module.chosen.tolist() == [False, False]
