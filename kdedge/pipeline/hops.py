"""The way from torch to the engines, hop by hop: each network and file of an export asked of the same test images."""

from typing import Any

import torch
from torch import nn

from kdedge.core import console
from kdedge.core.deployment import Export, Tolerance
from kdedge.core.recipe import Normalize
from kdedge.core.report import ExportedFile, Hop
from kdedge.core.rundir import RunDir
from kdedge.data.loader import Normalizer
from kdedge.engine.base import backend
from kdedge.engine.cascade import open_cascade
from kdedge.engine.rows import run_rows
from kdedge.export.arrays import read_arrays
from kdedge.export.onnx import OUTPUT
from kdedge.export.parity import LOWER, Logits, Predictions, predict_torch
from kdedge.export.referee import Referee


class Hops:
    """Asks, keeps the predictions, and compares each answer with that of the hop before.

    Early exits are held to the limits of fp32 only.  What a lower precision costs them is in the record, and a
    threshold that is chosen for that precision makes up for it.

    Args:
        outputs: names of the logits, in their order.
    """

    def __init__(self, run: RunDir, export: Export, outputs: tuple[str, ...], referee: Referee) -> None:
        self.run, self.export, self.outputs, self.referee = run, export, outputs, referee
        self.arrays = read_arrays(run / "arrays/eval.npz")
        self.hops: list[Hop] = []
        self.artifacts: list[str] = []
        self._answers: dict[str, Predictions] = {}

    def compare(
        self,
        network: nn.Module,
        normalize: Normalize,
        onnx: dict[str, ExportedFile],
        engines: dict[str, ExportedFile],
        cascades: dict[str, ExportedFile],
    ) -> None:
        """torch -> ONNX fp32 -> fp16, int8 -> their engines if they run here -> the engines' cascades.

        Files are by precision.
        """
        tolerance, precisions = self.export.tolerance, self.export.precisions
        self.add("torch", self.ask_torch(network, normalize), None, Tolerance())
        for precision in precisions:
            answers = self.ask(onnx[precision], "ort", self.onnx_options())
            before = "torch" if precision == "fp32" else "onnx-fp32"
            self.add(f"onnx-{precision}", answers, before, getattr(tolerance, precision))
        if self.export.engines == "device":
            return
        if reason := backend(self.export.backend).obstacle():
            console.warn(f"the engines were built but not run: {reason}")
            return
        for precision in precisions:
            answers = self.ask(engines[precision], self.export.backend, self.export.backend_options)
            limit = tolerance.fp32 if precision == "fp32" else LOWER
            self.add(f"engine-{precision}", answers, f"onnx-{precision}", limit)
            if precision in cascades:
                answers = self.ask_cascade(cascades[precision])
                self.add(f"cascade-{precision}", answers, f"engine-{precision}", limit)

    def ask_torch(self, network: nn.Module, normalize: Normalize) -> dict[str, Logits]:
        images = self.arrays.images
        if self.export.preprocess:
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
            images = Normalizer(normalize)(pixels).numpy()
        return predict_torch(network, images, self.outputs, self.referee.batch, self.referee.keep)

    def onnx_options(self) -> dict[str, Any]:
        """ONNX Runtime runs the ONNX files, whatever the engines are for."""
        return self.export.backend_options if self.export.backend == "ort" else {}

    def ask(self, file: ExportedFile, library: str, options: dict[str, Any]) -> dict[str, Logits]:
        with backend(library).open(self.run / file.path, options) as session:
            return run_rows(session, self.arrays.images, self.referee.batch, self.referee.keep)

    def ask_cascade(self, file: ExportedFile) -> dict[str, Logits]:
        with open_cascade(self.run / file.path) as cascade:
            return dict(zip(cascade.names, cascade.exits(self.arrays.images), strict=True))

    def answer(self, name: str) -> Logits:
        """What a hop that was compared gave for the images of `arrays`."""
        return self._answers[name].outputs

    def hop(self, name: str) -> Hop:
        return next(hop for hop in self.hops if hop.name == name)

    def add(self, name: str, answers: dict[str, Logits], reference: str | None, limit: Tolerance) -> None:
        """The early exits' hops are called exit1/onnx-fp32; those of the last one have their bare name."""
        early = limit if name.endswith("fp32") else Tolerance()
        for output in self.outputs:
            prefix = "" if output == OUTPUT else f"{output}/"
            here, there = prefix + name, reference and prefix + reference
            answer = self._answers[here] = Predictions(self.arrays.ids, answers[output])
            answer.save(self.run / f"predictions/{here}.npz")
            self.artifacts.append(f"predictions/{here}.npz")
            before = self._answers[there] if there else None
            allowed = limit if output == OUTPUT else early
            self.hops.append(self.referee.compare(here, answer, before, self.arrays, allowed, there))
