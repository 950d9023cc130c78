"""Which images a model was right about: small enough to be kept, so that two models are compared image by image."""

import hashlib
import json
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pydantic import Field, model_validator

from kdedge.core.record import Part


class Changed(NamedTuple):
    """Images that two models differ on."""

    lost: int
    won: int


class Correctness(Part):
    images: int = Field(ge=1)
    right: str
    """A bit an image, in order, packed from the highest bit of the first byte; base64."""
    of: str
    """SHA-256 of the images' ids and labels."""

    @model_validator(mode="after")
    def _whole(self) -> "Correctness":
        try:
            packed = b64decode(self.right, validate=True)
        except Error:
            raise ValueError("right: not base64") from None
        if len(packed) != (self.images + 7) // 8:
            raise ValueError(f"right: {len(packed)} bytes for {self.images} images")
        return self

    def bits(self) -> int:
        return int.from_bytes(b64decode(self.right))

    def since(self, before: "Correctness") -> Changed | None:
        """What was lost and won; None where it was of other images."""
        if (self.images, self.of) != (before.images, before.of):
            return None
        now, then = self.bits(), before.bits()
        return Changed((then & ~now).bit_count(), (now & ~then).bit_count())


def correctness(right: Iterable[bool], ids: Sequence[int], labels: Sequence[int]) -> Correctness:
    """One value each an image, all in the same order."""
    bits = "".join("1" if each else "0" for each in right)
    size = (len(bits) + 7) // 8
    packed = int(bits.ljust(8 * size, "0"), 2).to_bytes(size)
    known = json.dumps([list(ids), list(labels)], separators=(",", ":"))
    return Correctness(
        images=len(bits),
        right=b64encode(packed).decode(),
        of=hashlib.sha256(known.encode()).hexdigest(),
    )
