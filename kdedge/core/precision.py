"""What is recorded of an int8 file: the layout it was given, and whether distillation made it lose more."""

from kdedge.core.record import Part

SIGNIFICANT = 0.05


class Layout(Part):
    """How an int8 file is quantized, and why so."""

    cpu: str
    """host's kind, or the kind asked for; empty where the recipe names everything."""
    activations: str
    symmetric: bool
    reduce_range: bool
    """Weights of 7 bits."""
    why: str
    learned: int = 0
    """Layers that take what training for int8 left as their ranges; those of all others are calibrated."""

    def told(self) -> list[str]:
        spread = "symmetric" if self.symmetric else "asymmetric"
        bits = 7 if self.reduce_range else 8
        learned = f"; {self.learned} layers with the ranges that training for int8 left" if self.learned else ""
        return [f"int8 layout: {spread} {self.activations} activations, weights of {bits} bits; {self.why}{learned}"]


class Fragility(Part):
    """What int8 costs the distilled student, and the same student trained on the labels alone, on the same images."""

    images: int
    drop: float
    """Top-1 that the distilled student loses, as a fraction."""
    baseline_drop: float
    """Top-1 that the undistilled one loses, quantized in the same way."""
    worse: int
    """Images on which int8 costs the distilled student more: right before and wrong after where the other's answer is
    as right as it was, and so on."""
    better: int
    """Images on which it costs it less."""
    p_value: float
    """Of a sign test of these: the chance of as many worse ones if int8 cost both the same."""
    limit: float
    """What it may lose more, as a fraction."""

    @property
    def fragile(self) -> bool:
        return self.drop - self.baseline_drop > self.limit and self.p_value < SIGNIFICANT

    def told(self) -> list[str]:
        """The sentence of a student that is not fragile."""
        return [] if self.fragile else [f"{self.costs()}: no more than tolerated ({self.evidence()})"]

    def warned(self) -> list[str]:
        """The sentence of one that is."""
        verdict = f"over {100 * self.limit:g} points more ({self.evidence()})"
        return [f"{self.costs()}: {verdict}; see export.calibration.method and quantize"] if self.fragile else []

    def costs(self) -> str:
        drop, other = 100 * self.drop, 100 * self.baseline_drop
        return f"int8 costs the distilled student {drop:.2f} points and the undistilled one {other:.2f}"

    def evidence(self) -> str:
        return f"{self.worse} of {self.images} images against {self.better}, p = {self.p_value:.2g}"
