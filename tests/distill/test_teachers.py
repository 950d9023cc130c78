import torch

from kdedge.core.recipe import Normalize
from kdedge.distill.teachers import FrozenTeacher
from kdedge.models.zoo import build_model


def test_teacher_stays_in_eval_mode_and_without_gradients() -> None:
    teacher = FrozenTeacher(build_model("resnet8", {}, 4, (1, 8, 8)), Normalize(mean=(0.5,), std=(0.25,)))
    teacher.train()
    assert not any(module.training for module in teacher.model.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    assert not teacher(images).requires_grad


def test_teacher_is_fed_by_its_own_normalization() -> None:
    class Same(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)

    teacher = FrozenTeacher(Same(), Normalize(mean=(0.2,), std=(0.4,)))
    answer = teacher(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8))  # 0, 0.2 and 1
    torch.testing.assert_close(answer, torch.tensor([[-0.5, 0.0, 2.0]]))
