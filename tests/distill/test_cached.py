"""Kept answers of a teacher: the same as the teacher's, computed once, and never half written."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdedge.core.errors import KdedgeError
from kdedge.core.recipe import Augment, Data
from kdedge.distill import cached
from kdedge.distill.cached import Kept, keep, keep_answers
from kdedge.distill.job import Job, make_fabric
from kdedge.distill.meter import TermMeter
from kdedge.distill.teachers import FrozenTeacher, Live
from kdedge.distill.trainer import PhaseRun, train

MakeJob = Callable[..., Job]
CPU = torch.device("cpu")
VIEWS = 2
DATA = Data(name="digits", workers=0, augment=Augment(crop_padding=1, flip=True, views=VIEWS))
PHASE = {"epochs": 3, "methods": [{"name": "logits"}, {"name": "attention"}], "optimizer": {"lr": 0.05}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDEDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def job(make_job: MakeJob, teacher: FrozenTeacher) -> Job:
    return make_job(PHASE, data=DATA, teachers=(teacher,))


def kept_by(job: Job, names: Any = ()) -> Kept:
    return keep(job.teachers[0], names, job.dataset, DATA, CPU)


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}


def test_kept_answers_are_the_teachers_within_half_precision(job: Job) -> None:
    phase = PhaseRun(make_fabric(job.run), job, 0, 0, None, None)
    teacher = job.teachers[0]
    points = teacher.model.feature_points
    with kept_by(job, points).reading(points) as reading, Live(teacher, points) as live:
        for epoch in range(3):
            for batch in phase.loader.epoch(epoch):
                found, said = reading.ask(*batch[::2], epoch), live.ask(*batch[::2], epoch)
                torch.testing.assert_close(found[0], said[0], rtol=1e-3, atol=1e-4)
                assert list(found[1]) == list(points)
                for name, feature in said[1].items():
                    torch.testing.assert_close(found[1][name], feature, rtol=1e-3, atol=1e-4)


def test_steps_by_kept_answers_are_those_by_a_teacher_rounded_to_half_precision(job: Job, make_job: MakeJob) -> None:
    job.kept = keep_answers(job, CPU)
    twin = make_job(PHASE, data=DATA, teachers=job.teachers)
    with pytest.MonkeyPatch.context() as patch:
        asked = Live.ask

        def rounded(self: Live, images: Tensor, indices: Tensor, epoch: int) -> Any:
            logits, features = asked(self, images, indices, epoch)
            return logits.half().float(), {name: feature.half().float() for name, feature in features.items()}

        patch.setattr(Live, "ask", rounded)
        for each in (job, twin):
            phase = PhaseRun(make_fabric(each.run), each, 0, 0, None, None)
            with phase.objective, phase.staff() as staff:
                phase.module.train()
                for epoch in range(2):
                    for batch in phase.loader.epoch(epoch):
                        phase.step(batch, staff, epoch, 0.5, TermMeter())
    for found, wanted in zip(job.student.parameters(), twin.student.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def test_training_asks_the_teacher_once_for_each_view_and_image(job: Job, make_job: MakeJob) -> None:
    asked = []
    job.teachers[0].model.register_forward_pre_hook(lambda _, images: asked.append(len(images[0])))
    train(job)
    computed = 1 + VIEWS * (64 + 16)  # a sample for the shapes, then training and validation images
    assert sum(asked) == computed
    train(make_job(PHASE, data=DATA, teachers=job.teachers, folder=job.folder.parent / "again"))
    assert sum(asked) == computed + cached.PROBE


def test_features_are_added_and_what_is_there_stays(job: Job) -> None:
    kept = kept_by(job)
    before = files(kept.folder)
    assert list(before) == ["logits.npy"]
    assert kept_by(job, ["stage2"]) == kept
    after = files(kept.folder)
    assert after.keys() == {"logits.npy", "stage2.npy"}
    assert after["logits.npy"] == before["logits.npy"]


def test_half_written_answers_are_not_used(job: Job) -> None:
    network, calls = job.teachers[0].model, iter(range(100))

    def break_off(*_: Any) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt

    hook = network.register_forward_pre_hook(break_off)
    with pytest.raises(KeyboardInterrupt):
        kept_by(job)
    hook.remove()
    [folder] = (Path(os.environ["KDEDGE_CACHE"]) / "teachers").iterdir()
    assert files(folder) == {}
    (folder / ".logits-killed.npy").write_bytes(b"half of it")
    kept = kept_by(job)
    assert list(files(kept.folder)) == ["logits.npy"]
    assert not (folder / ".logits-killed.npy").exists()


def test_answers_of_a_teacher_that_now_says_otherwise_are_computed_anew(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights and modules are the same, so that its folder is."""
    before = kept_by(job)
    first = files(before.folder)
    network = type(job.teachers[0].model)
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda self, images: -forward(self, images))
    assert kept_by(job) == before
    assert files(before.folder) != first


def test_other_weights_and_other_views_are_kept_elsewhere(job: Job, make_job: MakeJob, dataset: Any) -> None:
    folders = {kept_by(job).folder}
    more = DATA.model_copy(update={"augment": DATA.augment.model_copy(update={"views": 3})})
    folders.add(keep(job.teachers[0], [], dataset, more, CPU).folder)
    with torch.no_grad():
        job.teachers[0].model.linear.bias += 1
    folders.add(kept_by(job).folder)
    assert len(folders) == 3


def test_too_little_disk_is_said_before_anything_is_computed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 0})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(KdedgeError, match="0 MiB of free disk"):
        kept_by(job)


def test_nothing_is_kept_without_fixed_views(job: Job) -> None:
    job.data = Data(name="digits", workers=0)
    assert keep_answers(job, CPU) == ()


def test_teacher_that_nobody_listens_to_is_not_asked(make_job: MakeJob, teacher: FrozenTeacher) -> None:
    assert keep_answers(make_job({"epochs": 1}, data=DATA, teachers=(teacher,)), CPU) == (None,)
