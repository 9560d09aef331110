"""What goes over a session: a kind, a step, bytes and tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from privacy.errors import LocalProtocolError

Array = npt.NDArray[Any]
DTYPES = tuple(np.dtype(code) for code in ("<f4", "<f8", "<i8", "<u8", "|b1"))
"""In the order of their codes on the wire: float32, float64, int64, uint64, bool."""
MAX_TENSORS = 16
MAX_DIMS = 8
MAX_NAME = 64  # bytes in UTF-8
MAX_STEP = 2**64 - 1

_KIND = re.compile(r"[a-z][a-z-]{0,31}")


@dataclass(frozen=True)
class Message:
    """One unit on a session; as secret as what it carries.

    Attributes:
      kind: What the two ends call it; up to 32 characters of a-z and hyphens.
      step: Counts what the application counts; the headers of the tensors repeat it.
      body: Of any format, up to ``Limits.frame_bytes`` together with the tensors.
      tensors: By name, at most 16 of at most 8 dimensions. Received ones are the receiver's own, to write to as well.

    Raises: LocalProtocolError: Something that the format has no place for.
    """

    kind: str
    step: int = 0
    body: bytes = b""
    tensors: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if not is_kind(self.kind):
            raise LocalProtocolError(f"{self.kind[:64]!r} is no kind of message")
        if not 0 <= self.step <= MAX_STEP:
            raise LocalProtocolError("a step is a number of 64 bits")
        if len(self.tensors) > MAX_TENSORS:
            raise LocalProtocolError(f"a message has at most {MAX_TENSORS} tensors")


def is_kind(text: str) -> bool:
    """Tells whether ``text`` can name a kind of message or of service."""
    return _KIND.fullmatch(text) is not None
