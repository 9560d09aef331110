"""The claim ``audit.inversion``: what a server could make of one update, of a record that was made up for this.

The control is the update in the clear: from it the record has to come back. Protected means that what a server makes
of the masked or noised update is no better than a guess made without seeing anything, up to one decibel.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from privacy.audit.figures import figure
from privacy.audit.measured import bounds
from privacy.audit.statement import Statement

INVERSION = "audit.inversion"
EXACT = Decimal("0.000001")
"""Mean squared error below which a record counts as reconstructed."""
ALLOWED_DECIBEL = 1.0
"""How much closer than a guess a protected view may come."""

View = Literal["clear", "masked", "noised"]
Values = npt.NDArray[np.float64]

_TOLERANCE = Decimal("0.000000001")
_PROTECTED = ("masked", "noised")


def inversion_claim(
    *,
    form: Literal["table", "image"],
    fields: Sequence[str],
    width: int,
    record: Values,
    guess: Values,
    views: Mapping[View, Values],
) -> dict[str, Any]:
    """Builds the claim. All of it is public, since the record is nobody's.

    Args:
      form: What the record is, and so how it is drawn.
      fields: Name of each value of a table; empty for an image.
      width: Values a row of an image; 1 for a table.
      record: Shape ``(n,)``, values from 0 to 1.
      guess: Likewise: what somebody would say who saw nothing.
      views: What a server makes of each view of the update, likewise.
    """
    written = [figure(value) for value in record]
    claim = {
        "id": INVERSION,
        "kind": "measured",
        "form": form,
        "fields": list(fields),
        "width": width,
        "record": written,
        "guess": _reconstruction("guess", guess, written),
        "views": [_reconstruction(view, values, written) for view, values in views.items()],
    }
    return {**claim, "verdict": verdict(claim)}


def problems(claim: dict[str, Any], report: Statement) -> Iterator[str]:
    """Yields what does not follow: errors from values, views from the protections that were on."""
    size, views = len(claim["record"]), [one["view"] for one in claim["views"]]
    everything = [claim["guess"], *claim["views"]]
    if any(len(one["values"]) != size for one in everything):
        yield "a reconstruction is not of the record's size"
        return
    if claim["guess"]["view"] != "guess" or sorted(views) != sorted({"clear", *views} - {"guess"}):
        yield "the views are not the clear one and others, each once"
    if not all(
        0 <= Decimal(value) <= 1
        for values in (claim["record"], *(one["values"] for one in everything))
        for value in values
    ):
        yield "a value is not between 0 and 1"
    rows = {"table": (1, size), "image": (claim["width"], 0)}
    if size % claim["width"] or (claim["width"], len(claim["fields"])) != rows[claim["form"]]:
        yield "the record does not have the form that is said"
    if "masked" in views and report.claim("secagg.rounds") is None:
        yield "a masked update is shown of a run that masked none"
    if "noised" in views and not report.epsilons:
        yield "a noised update is shown of a run that noised none"
    for one in everything:
        if abs(Decimal(one["mse"]) - Decimal(_mse(one["values"], claim["record"]))) > _TOLERANCE:
            yield f"the error of '{one['view']}' does not follow from its values"
    if claim["verdict"] != verdict(claim):
        yield f"the verdict is '{verdict(claim)}' by the errors, not '{claim['verdict']}'"


def verdict(claim: dict[str, Any]) -> bounds.Verdict:
    """Returns violation where a protected view is better than the guess; inconclusive where the clear one fails too."""
    errors = {one["view"]: Decimal(one["mse"]) for one in claim["views"]}
    guess = float(claim["guess"]["mse"])
    least = Decimal(guess * 10 ** (-ALLOWED_DECIBEL / 10))
    return bounds.judged(
        exceeded=any(errors[view] < least for view in _PROTECTED if view in errors),
        fired=guess > 0 and errors.get("clear", Decimal(1)) < EXACT,
    )


def summary(claim: dict[str, Any]) -> str:
    """Returns the line about a claim whose numbers follow."""
    errors = {one["view"]: one["mse"] for one in [claim["guess"], *claim["views"]]}
    told = ", ".join(f"{view} {_decibel(mse)}" for view, mse in errors.items())
    return f"one made-up record back from one update, peak signal to noise: {told}"


def _reconstruction(view: str, values: Values, record: Sequence[str]) -> dict[str, Any]:
    written = [figure(value) for value in values]
    return {"view": view, "values": written, "mse": _mse(written, record)}


def _mse(values: Sequence[str], record: Sequence[str]) -> str:
    difference = np.array([float(value) for value in values]) - np.array([float(value) for value in record])
    return figure(float(np.mean(difference**2)))


def _decibel(mse: str) -> str:
    return f"{-10 * math.log10(float(mse)):.1f} dB" if Decimal(mse) > 0 else "exact"
