"""What is recorded of the energy that one inference takes."""

from kdedge.core.record import Part


class Spread(Part):
    """Of the repeats."""

    mean: float
    std: float | None
    """None with one repeat."""
    lowest: float
    highest: float
    values: tuple[float, ...] = ()
    """In order; empty in records of before they were kept."""

    def __str__(self) -> str:
        return f"{self.mean:.3g}" + (f" +- {self.std:.2g}" if self.std is not None else "")


class Energy(Part):
    """Net: above idle power.  Gross: all that was drawn meanwhile."""

    net_mj: Spread
    """Millijoules per inference."""
    gross_mj: Spread
    power_mw: Spread
    idle_mw: float
    repeats: int
    inferences: int
    samples: int
    rate_hz: float
    source: str
    """What was read, which rails make the total, and what that leaves out."""
    notes: tuple[str, ...] = ()

    def told(self) -> list[str]:
        """For whoever reads the profile."""
        sentence = f"energy per inference: {self.net_mj} mJ above idle, {self.gross_mj} mJ in all ({self.source})"
        return [sentence, *self.notes]
