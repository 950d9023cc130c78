"""The section of a recipe that makes a network lighter."""

from typing import Any, Literal

from pydantic import Field

from kdedge.core.section import Section

LightConv = Literal["grouped", "depthwise", "auto"]


class Lighten(Section):
    """A network's k x k convolutions made grouped or depthwise-separable, whatever network it is."""

    conv: LightConv
    """auto: grouped in residual branches, depthwise elsewhere between maps of the same 128 or more channels."""
    groups: int | None = Field(None, ge=2)
    """Of grouped convolutions; 4 when not given."""
    shuffle: bool = True
    """Deal channels out to all groups before a grouped convolution."""
    layers: tuple[str, ...] = Field(("*",), min_length=1)
    """Patterns of module paths, such as layer3.*; only the convolutions that one fits are rewritten."""
    init: Literal["random", "teacher"] = "random"
    """teacher: start from the first teacher's weights, which must be those of the same network before lightening."""

    def rewriting(self) -> dict[str, Any]:
        """All but `init`, by name."""
        return {key: getattr(self, key) for key in ("conv", "groups", "shuffle", "layers")}
