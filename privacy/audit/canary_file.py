"""The canaries' scores, so that a stranger can count right guesses again: a line a measurement.

A line is canonical JSON: the claim that rests on it, what was measured, and the scores in the order of the canaries,
each as ``figures.figure`` writes it. Which canaries were in is not here: it follows from the claim's seed.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from privacy.audit import canonical
from privacy.audit.figures import figure
from privacy.errors import ConfigError

CANARIES_FILE = "transcript/canaries.jsonl"
"""Where a run folder holds it."""
MAX_CANARIES_BYTES = 2**26
"""Largest file that is read; 4,096 canaries with four controls have 400 kB a release path."""
MAX_SCORES = 2**14
"""Most canaries of a claim."""

_CLAIMS = ("audit.one_run", "audit.black_box")
_FIGURE = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,40})?")
_LONGEST_NAME = 64

Scores = npt.NDArray[np.float64]


def line(claim: str, what: str, scores: Scores) -> bytes:
    """Returns the line of one measurement, its newline included.

    Args:
      claim: ``audit.one_run`` or ``audit.black_box``.
      what: What was measured, like ``local/integer/correct`` or ``black_box/protected``.
      scores: Shape ``(m,)``, finite, in the order of the canaries.
    """
    return canonical.dumps({"claim": claim, "what": what, "scores": [figure(score) for score in scores]}) + b"\n"


def rounded(scores: Scores) -> Scores:
    """Returns the scores as the file will hold them: whatever a claim says is computed from these."""
    return np.array([float(figure(score)) for score in scores], np.float64)


def digest(lines: bytes) -> str:
    """Returns what a claim says of its own lines, in their order: SHA-256, 64 hex digits."""
    return hashlib.sha256(lines).hexdigest()


def decode(data: bytes) -> Mapping[str, bytes]:
    """Sorts the lines of a stranger's file by the claim that they belong to.

    Raises: ConfigError: Too large, or a line that ``line`` would not have written.
    """
    if len(data) > MAX_CANARIES_BYTES:
        raise ConfigError(f"the canaries' scores are larger than {MAX_CANARIES_BYTES // 2**20} MB")
    found: dict[str, bytes] = {}
    for number, raw in enumerate(io.BytesIO(data), start=1):
        claim = _read(number, raw)["claim"]
        found[claim] = found.get(claim, b"") + raw
    return found


def scores_of(lines: bytes) -> dict[str, Scores]:
    """Returns the scores by what was measured.

    Raises: ConfigError: A line that ``line`` would not have written, or a measurement twice.
    """
    found: dict[str, Scores] = {}
    for number, raw in enumerate(io.BytesIO(lines), start=1):
        value = _read(number, raw)
        if value["what"] in found:
            raise ConfigError(f"the canaries' scores hold {value['what']} twice")
        found[value["what"]] = np.array([float(text) for text in value["scores"]], np.float64)
    return found


def _read(number: int, raw: bytes) -> dict[str, Any]:
    what = f"line {number} of the canaries' scores"
    if not raw.endswith(b"\n"):
        raise ConfigError(f"{what} does not end in a newline: it is cut short or was edited")
    match canonical.loads(raw[:-1], what=what):
        case {"claim": str(claim), "what": str(name), "scores": list(scores), **more} if not more:
            if claim in _CLAIMS and len(name) <= _LONGEST_NAME and _are_figures(scores):
                return {"claim": claim, "what": name, "scores": scores}
    raise ConfigError(f"{what} is not a measurement's scores")


def _are_figures(scores: Iterable[Any]) -> bool:
    listed = list(scores)
    fit = (isinstance(text, str) and _FIGURE.fullmatch(text) for text in listed)
    return len(listed) <= MAX_SCORES and all(fit)
