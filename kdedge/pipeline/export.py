"""student/weights.safetensors -> arrays/, export/*.onnx, engine/*, predictions/*.npz, export.json"""

from pathlib import Path

import torch
from torch import nn

from kdedge.core.errors import ModelError
from kdedge.core.recipe import Model, Normalize, Tolerance
from kdedge.core.report import ExportedFile, ExportReport, Hop
from kdedge.core.rundir import sha256_file, write_json
from kdedge.data.build import Dataset, build_data
from kdedge.data.loader import Normalizer
from kdedge.engine.base import backend
from kdedge.export.onnx import export_onnx
from kdedge.export.parity import Logits, Predictions, compare, predict_session, predict_torch
from kdedge.export.precision import to_fp16, to_int8
from kdedge.models.weights import load_weights
from kdedge.pipeline.arrays import read_arrays, write_arrays
from kdedge.pipeline.environment import environment
from kdedge.pipeline.networks import build
from kdedge.pipeline.project import EXPORT, Project
from kdedge.pipeline.show import show_export

TEACHER = "teacher"


def run(project: Project) -> list[str]:
    """Export and compare every hop; returns the artifacts.

    Raises:
        ModelError: a hop loses more than the recipe tolerates.
    """
    recipe = project.recipe
    dataset = build_data(recipe.data, recipe.seed)
    work = Exporting(project, dataset)
    work.artifacts += write_arrays(dataset, recipe.export, project.run / "arrays")
    student = work.load(recipe.student, "student/weights.safetensors")
    work.student(student)
    if recipe.teachers:
        work.teacher(work.load(recipe.teachers[0], "teacher.safetensors"))
    report = ExportReport(
        onnx=work.onnx,
        engines=work.engines,
        hops=work.compare_hops(student),
        opset=recipe.export.opset,
        backend=recipe.export.backend,
        environment=environment(),
    )
    write_json(project.run / EXPORT, report)
    show_export(report)
    refuse(report)
    return [*work.artifacts, EXPORT]


class Exporting:
    """One run of the command, and what it has written."""

    def __init__(self, project: Project, dataset: Dataset) -> None:
        self.project, self.dataset, self.recipe, self.run = project, dataset, project.recipe.export, project.run
        self.artifacts: list[str] = []
        self.onnx: dict[str, ExportedFile] = {}
        self.engines: dict[str, ExportedFile] = {}

    def load(self, model: Model, weights: str) -> nn.Module:
        network = build(model, self.dataset, self.project.recipe.seed)
        load_weights(network, self.run / weights)
        return network.eval()

    def student(self, network: nn.Module) -> None:
        """fp32 from the network, the other precisions from fp32, and each one's engine."""
        fp32 = self.run / "export/student.fp32.onnx"
        self.write(network, fp32, self.dataset.normalize)
        for precision in self.recipe.precisions:
            path = self.run / f"export/student.{precision}.onnx"
            if precision == "fp16":
                to_fp16(fp32, path)
            elif precision == "int8":
                images = read_arrays(self.run / "arrays/calibration.npz").images
                to_int8(fp32, path, images, self.recipe)
            self.keep(precision, path)

    def teacher(self, network: nn.Module) -> None:
        """In fp32, so that it is measured beside its student."""
        path = self.run / "export/teacher.onnx"
        self.write(network, path, self.project.recipe.teachers[0].normalize or self.dataset.normalize)
        self.keep(TEACHER, path)

    def write(self, network: nn.Module, path: Path, normalize: Normalize) -> None:
        export_onnx(network, path, self.dataset.image_shape, self.recipe, normalize, self.dataset.labels)

    def keep(self, name: str, path: Path) -> None:
        """Note an ONNX file and build its engine."""
        builder = backend(self.recipe.backend)
        engine = self.run / "engine" / f"{path.name.removesuffix('.onnx')}{builder.suffix}"
        builder.build(path, engine, self.recipe.backend_options)
        self.onnx[name] = self.describe(path)
        self.engines[name] = self.describe(engine)
        self.artifacts.append(f"engine/{engine.name}.json")
        self.read_back(name, engine)

    def read_back(self, name: str, engine: Path) -> None:
        """Note where an engine computes in more than its precision; raises ModelError where int8 is in name only."""
        with backend(self.recipe.backend).open(engine, self.recipe.backend_options) as session:
            built = session.precision_built()
        if name == "int8" and not built.get("int8"):
            raise ModelError(
                f"{engine.name} was asked for in int8", f"it was built with {built}", "see export.quantization"
            )
        if name == "fp16" and not built.get("fp16"):
            self.engines[name].notes.append("fp16 storage")

    def describe(self, path: Path) -> ExportedFile:
        name = str(path.relative_to(self.run.path))
        self.artifacts.append(name)
        return ExportedFile(path=name, bytes=path.stat().st_size, sha256=sha256_file(path))

    def compare_hops(self, network: nn.Module) -> list[Hop]:
        """torch -> ONNX fp32 -> fp16, int8 -> their engines, each on the same test images."""
        self.arrays = read_arrays(self.run / "arrays/eval.npz")
        start = Predictions(self.arrays.ids, self.torch_logits(network))
        hops = [self.hop("torch", start, None, Tolerance(), None)]
        onnx: dict[str, Predictions] = {}
        for precision in self.recipe.precisions:
            name = f"onnx-{precision}"
            before = ("torch", start) if precision == "fp32" else ("onnx-fp32", onnx["fp32"])
            onnx[precision] = self.ask(self.onnx[precision])
            hops.append(
                self.hop(name, onnx[precision], before[1], getattr(self.recipe.tolerance, precision), before[0])
            )
        for precision in self.recipe.precisions:
            answer = self.ask(self.engines[precision])
            exact = self.recipe.tolerance.fp32 if precision == "fp32" else Tolerance(agreement=0.99, top1_drop=0.01)
            hops.append(self.hop(f"engine-{precision}", answer, onnx[precision], exact, f"onnx-{precision}"))
        return hops

    def torch_logits(self, network: nn.Module) -> Logits:
        images = self.arrays.images
        if self.recipe.preprocess:
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
            images = Normalizer(self.dataset.normalize)(pixels).numpy()
        return predict_torch(network, images)

    def ask(self, file: ExportedFile) -> Predictions:
        with backend(self.recipe.backend).open(self.run / file.path, self.recipe.backend_options) as session:
            return Predictions(self.arrays.ids, predict_session(session, self.arrays.images))

    def hop(
        self, name: str, answer: Predictions, before: Predictions | None, limit: Tolerance, reference: str | None
    ) -> Hop:
        answer.save(self.run / f"predictions/{name}.npz")
        self.artifacts.append(f"predictions/{name}.npz")
        return compare(name, answer, before, self.arrays.labels, limit, reference_name=reference)


def refuse(report: ExportReport) -> None:
    lines = [f"{hop.name} against {hop.reference}: {problem}" for hop in report.hops for problem in hop.problems]
    if lines:
        raise ModelError(
            "a hop loses more than the recipe tolerates", "\n  ".join(lines),
            "see export.tolerance, export.calibration.method, or leave the precision out of export.precisions",
        )  # fmt: skip
