"""recipe -> student/, baseline/, teacher.safetensors, predictions/, training.json"""

import shutil
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from kdedge.core import console
from kdedge.core.quality import MEASURES
from kdedge.core.recipe import Normalize, Recipe, Teacher
from kdedge.core.report import TrainedModel, TrainingReport
from kdedge.core.rundir import digest, write_json
from kdedge.core.training import CrossEntropy, Phase, Schedule
from kdedge.data.build import build_data
from kdedge.data.sets import Dataset
from kdedge.distill.base import METHODS
from kdedge.distill.evaluate import predict
from kdedge.distill.job import Job, cpu_threads, make_fabric
from kdedge.distill.result import RANGES, Result
from kdedge.distill.teachers import FrozenTeacher
from kdedge.distill.trainer import train
from kdedge.export.parity import Predictions
from kdedge.models.weights import save_weights
from kdedge.pipeline.environment import environment
from kdedge.pipeline.judges import judge_of
from kdedge.pipeline.names import check_names, check_networks
from kdedge.pipeline.networks import TeacherNet, build_peers, describe, obtain_teacher, origin, start_student
from kdedge.pipeline.project import TRAINING, Project, control_folder
from kdedge.pipeline.show import show_training


def run(project: Project) -> list[str]:
    """Train what is not trained yet; returns the artifacts."""
    check_names(project)
    recipe = project.recipe
    torch.set_num_threads(cpu_threads(recipe.run))
    check_networks(project)
    dataset = build_data(recipe.data, recipe.seed)
    work = Distillation(project, dataset)
    teachers = work.obtain_teachers()
    baseline = work.train_baseline() if recipe.baseline else None
    controls = {name: work.train_control(name) for name in controls_of(recipe)} if recipe.baseline else {}
    student = work.train_student()
    report = TrainingReport(
        recipe=recipe.name,
        task=recipe.task,
        seed=recipe.seed,
        train_images=len(dataset.train),
        validation_images=len(dataset.validation),
        test_images=len(dataset.test),
        labels=list(dataset.labels),
        methods=[method.name for phase in recipe.phases for method in phase.methods],
        student=student,
        teachers=teachers,
        peers=work.peers,
        baseline=baseline,
        controls=controls,
        environment=environment(),
    )
    write_json(project.run / TRAINING, report)
    show_training(report)
    return [*work.artifacts, TRAINING]


class Distillation:
    """One run of the command: what it measures as it goes, and what it has written."""

    def __init__(self, project: Project, dataset: Dataset) -> None:
        self.project, self.recipe, self.dataset = project, project.recipe, dataset
        self.device = make_fabric(self.recipe.run.model_copy(update={"devices": 1})).device
        self.artifacts: list[str] = []
        self.teachers: tuple[FrozenTeacher, ...] = ()
        self.peers: list[TrainedModel] = []

    def measure(self, name: str, network: nn.Module, normalize: Normalize) -> float:
        """Accuracy on the test split; the predictions are kept."""
        judge, workers = judge_of(network, self.dataset), self.recipe.data.workers
        kept, labels = predict(network.to(self.device), self.dataset.test, normalize, self.device, workers, judge)
        Predictions(np.arange(len(labels)), kept.numpy()).save(self.project.run / f"predictions/{name}.npz")
        self.artifacts.append(f"predictions/{name}.npz")
        return judge.quality(kept, labels).accuracy

    def obtain_teachers(self) -> list[TrainedModel]:
        """Obtain every teacher and say how good it is, before anything learns from it."""
        return [self.obtain_teacher(number, teacher) for number, teacher in enumerate(self.recipe.teachers)]

    def obtain_teacher(self, number: int, teacher: Teacher) -> TrainedModel:
        name = f"teacher{number or ''}"
        found = obtain_teacher(self.project, teacher, self.dataset, f"teachers.{number}")
        accuracy, measure = self.measure(name, found.network, found.normalize), MEASURES[self.recipe.task].label
        tested = f"{len(self.dataset.test)} test images"
        console.say(f"teacher {teacher.name}: {console.percent(accuracy)} {measure} on {tested}")
        self.teachers += (FrozenTeacher(found.network, found.normalize),)
        save_weights(found.network, self.project.run / f"{name}.safetensors")
        self.artifacts.append(f"{name}.safetensors")
        self.keep_log(name, found)
        measured = {"accuracy": accuracy, "source": found.source, "seconds": found.seconds, "epochs": found.epochs}
        return describe(teacher, found.network, self.dataset, **measured)

    def keep_log(self, name: str, found: TeacherNet) -> None:
        if found.folder:
            (self.project.run / name).mkdir(exist_ok=True)
            shutil.copyfile(found.folder / "log.csv", self.project.run / f"{name}/log.csv")
            self.artifacts.append(f"{name}/log.csv")

    def train_student(self) -> TrainedModel:
        return self.train("student", self.recipe.phases, self.project.student_key())

    def train_baseline(self) -> TrainedModel:
        """The same student, from the same start, for the same epochs, on the labels alone."""
        phases = tuple(labels_only(phase) for phase in self.recipe.phases if "*" not in phase.freeze)
        start = self.recipe.student.lighten
        teachers = self.recipe.teachers if start and start.init == "teacher" else ()
        recipe = self.recipe.model_copy(update={"phases": phases, "teachers": teachers, "peers": ()})
        return self.train("baseline", phases, replace(self.project, recipe=recipe).student_key(), alone=True)

    def train_control(self, name: str) -> TrainedModel:
        """The same student by what its methods must be held against."""
        recipe = self.recipe.model_copy(update={"phases": tuple(controlled(p, name) for p in self.recipe.phases)})
        identity = replace(self.project, recipe=recipe).student_key()
        return self.train(control_folder(name), recipe.phases, identity)

    def train(self, name: str, phases: tuple[Phase, ...], identity: str, *, alone: bool = False) -> TrainedModel:
        """Train the student; alone: without teachers and peers."""
        recipe, folder = self.recipe, self.project.run / name
        network = start_student(self.project, self.dataset, self.teachers)
        peers = () if alone else build_peers(recipe.peers, self.dataset, recipe.seed)
        label = f"{name} {recipe.student.name}"
        job = Job(
            label,
            network,
            self.dataset,
            recipe.data,
            phases,
            recipe.run,
            recipe.seed,
            folder,
            digest(identity),
            () if alone else self.teachers,
            peers,
            judge=judge_of(network, self.dataset),
        )
        result: Result = train(job)
        self.artifacts += [f"{name}/weights.safetensors", f"{name}/methods.safetensors", f"{name}/log.csv"]
        self.artifacts += [f"{name}/{RANGES}"] if phases[-1].quantize else []
        if name == "student":
            self.peers = [self.peer(number, peer) for number, peer in enumerate(peers)]
        accuracy = self.measure(name, network, self.dataset.normalize)
        return describe(
            recipe.student,
            network,
            self.dataset,
            accuracy=accuracy,
            validation_accuracy=result.validation_accuracy,
            epochs=result.epochs,
            seconds=result.seconds,
            exits=result.exits,
            ensemble=result.ensemble,
            extra_params=result.extra_params,
            source=origin(self.project, recipe.student),
        )

    def peer(self, number: int, network: nn.Module) -> TrainedModel:
        accuracy = self.measure(f"peer{number}", network, self.dataset.normalize)
        self.artifacts.append(f"student/peer{number}.safetensors")
        return describe(self.recipe.peers[number], network, self.dataset, accuracy=accuracy, source="trained")


def labels_only(phase: Phase) -> Phase:
    labels = CrossEntropy(label_smoothing=phase.cross_entropy.label_smoothing)
    boxes = phase.detection.model_copy(update={"schedule": Schedule()})
    return phase.model_copy(update={"methods": (), "freeze": (), "cross_entropy": labels, "detection": boxes})


def controls_of(recipe: Recipe) -> list[str]:
    """Names of what the recipe's methods must be held against."""
    found = [METHODS.get(use.name).control(use.options) for phase in recipe.phases for use in phase.methods]
    return list(dict.fromkeys(control[0] for control in found if control))


def controlled(phase: Phase, name: str) -> Phase:
    """A phase whose methods that have a control of this name are replaced by it, its terms as the method has them."""
    uses = []
    for use in phase.methods:
        control = METHODS.get(use.name).control(use.options)
        same = control is not None and control[0] == name
        uses.append(use.model_copy(update={"options": control[1], "terms": {}}) if control and same else use)
    return phase.model_copy(update={"methods": tuple(uses)})
