"""Scores that a bench counts on: its test rows give one under every model."""

import math
from collections.abc import Iterable


def mean(scores: Iterable[float | None]) -> float:
    """Returns their mean. Raises: ValueError: One is not there (`clients.scores`), or none."""
    every = list(scores)
    known = [score for score in every if score is not None]
    if not known or len(known) < len(every):
        raise ValueError("a score that the bench counts on is not there")
    return math.fsum(known) / len(known)
