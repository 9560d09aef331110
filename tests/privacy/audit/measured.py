"""What the sample run measured: claims of tests and attacks whose numbers follow from each other, drawn from seeds."""

import copy
import hashlib
import math
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.attacks import canaries
from privacy.attacks.gaussian_pair import shape_of
from privacy.audit import attack_claims
from privacy.audit.attack_claims import Compared, Defect, Evidence, Measurement, PathAudit, Scored
from privacy.audit.measured.inversion import View
from privacy.conformance import results
from privacy.conformance.path import Arithmetics, Placement
from privacy.conformance.results import BY_CHANCE, LIMITS
from privacy.conformance.tests import DRAWS, defects, error_of_each, expected

Floats = NDArray[np.float64]

SITES = {"cleveland": (199, 104), "hungary": (172, 89), "switzerland": (30, 16), "va": (85, 45)}
SEED = hashlib.sha256(b"the sample's canaries").digest()
CANARIES, MISLABELLED = 1024, 200
FIELDS = (
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
)

# Statistics that correct code could have, for the tests that go by chance.
STATISTICS = {
    "noise scale": 1.0009,
    "noise shape": 0.0022,
    "neighbouring entries": 0.0011,
    "successive releases": -0.0012,
    "batch sizes": 1.0009,
    "takings of each group": 1.0009,
}


# The release path


def conformance_claim(epsilons: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Every release path behind these epsilons; where the server adds noise, the sites clip."""
    found: dict[str, Any] = {"id": "conformance.release", "kind": "measured", "family_error": "0.0001", "sites": []}
    for claim in epsilons:
        holders = {entry["site"] for entry in claim["sites"]}
        for holder in sorted(holders if claim["placement"] != "central" else {*holders, *SITES}):
            path: Arithmetics = "float" if claim["kind"] == "asserted" else "integer"
            events = [event for entry in claim["sites"] for event in entry["events"]]
            poisson = any("sampling" in event and event["sampling"]["type"] == "poisson" for event in events)
            tested = _tested(claim["placement"], path, poisson=poisson, noised=holder in holders)
            found["sites"].append({"site": holder, **tested})
    return found


def _tested(placement: Placement, path: Arithmetics, *, poisson: bool, noised: bool) -> dict[str, Any]:
    error = error_of_each(poisson=poisson)
    tests = [
        (
            results.Result(test, name, DRAWS[name], STATISTICS[name], p, error, p >= error)
            if (p := BY_CHANCE[name](DRAWS[name], STATISTICS[name]) if name in BY_CHANCE else None) is not None
            else results.Result(test, name, 12, min(LIMITS[name], 0.99), None, LIMITS[name], passed=True)
        ).to_json()
        for test, name in sorted(expected(placement, path, poisson=poisson, noised=noised))
    ]
    controls = [{"defect": defect, "fired": True} for defect in defects(noised=noised)]
    return {"placement": placement, "path": path, "tests": tests, "controls": controls}


def _path(noise: float, canary: float, seed: int, *, repeated: bool = False) -> Measurement:
    """Releases that much noise twice, once with canaries in it; all in units of the clip."""
    rng, included = np.random.default_rng(seed), canaries.included(SEED, CANARIES)
    scores = noise * rng.standard_normal(CANARIES) + canary * included
    return Measurement(scores, shape_of(noise * rng.standard_normal(CANARIES)), repeated)


@cache
def one_run() -> Evidence:
    """The noise of the whole run in one release: 10.6156 over the root of 17 executions."""
    noise = 10.6156 / math.sqrt(17)
    broken: dict[Defect, Measurement] = {
        "noise halved": _path(noise / 2, 1, 2),
        "noise off": _path(0, 1, 3),
        "clipping off": _path(noise, 20, 4),
        "seed fixed": _path(noise, 1, 5, repeated=True),
    }
    audit = PathAudit("local", "float", Decimal(repr(noise)), _path(noise, 1, 1), broken)
    return attack_claims.one_run_claim([audit], seed=SEED)


# The delivered model


def _black_box(epsilons: Sequence[dict[str, Any]]) -> Evidence:
    rng, included = np.random.default_rng(6), canaries.included(SEED, MISLABELLED)
    noise = rng.standard_normal((2, MISLABELLED))
    return attack_claims.black_box_claim(
        Scored("logistic, as in the run", noise[0]),
        Scored("a network with 64 hidden units, until it remembers", noise[1] + 3.5 * included),
        records=486,
        epsilons=epsilons,
        seed=SEED,
    )


def _membership(epsilons: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores have one decimal, so that the curves have few corners."""
    rng = np.random.default_rng(7)

    def compared(n_members: int, n_others: int, apart: float) -> Compared:
        members, others = rng.standard_normal(n_members) + apart, rng.standard_normal(n_others)
        return Compared(members.round(1), others.round(1))

    sites = {site: compared(*counts, 0.05) for site, counts in SITES.items()}
    return attack_claims.membership_claim(sites, compared(243, 243, 2.4), epsilons=epsilons)


def attacked(epsilons: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], bytes]:
    """Returns an auditor's claims about a run that promises these epsilons, and the file of canaries' scores."""
    released, trained = one_run(), _black_box(epsilons)
    claims = [released.claim, trained.claim, _membership(epsilons), inversion_claim()]
    return copy.deepcopy(claims), released.lines + trained.lines


def one_shot_claim(epsilons: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """A hundred canary sites in a copy of a run with site-level privacy, and in one next to without noise."""
    rng = np.random.default_rng(8)
    quiet, loud = (mean + rng.standard_normal(100) / math.sqrt(4810) for mean in (0.005, 0.06))
    return attack_claims.one_shot_claim(quiet, loud, dimension=4810, epsilons=epsilons, delta=Decimal("0.001"))


# One update


def inversion_claim(*, image: bool = False) -> dict[str, Any]:
    """A record back from its update: in the clear, with noise, and for images from the masked update as well."""
    rng, record = np.random.default_rng(9), _glyph() if image else _PATIENT
    guess = np.full(record.size, 0.5)
    views: dict[View, Floats] = {
        "clear": np.clip(record + 1e-9, 0, 1),
        "noised": np.clip(guess + 0.25 * rng.standard_normal(record.size), 0, 1),
    }
    if image:
        views["masked"] = rng.random(record.size)
    return attack_claims.inversion_claim(
        form="image" if image else "table",
        fields=() if image else FIELDS,
        width=14 if image else 1,
        record=record,
        guess=guess,
        views=views,
    )


_PATIENT: Floats = np.array([0.52, 1, 0.6667, 0.38, 0.41, 0, 0.5, 0.55, 0, 0.12, 0.5, 0, 1])


def _glyph() -> Floats:
    """A ring with a tail, 14 pixels a side; shape ``(196,)``."""
    y, x = np.mgrid[0:14, 0:14]
    ring = 1 - np.abs(np.hypot(x - 6.5, y - 5) - 3) / 1.3
    tail = np.where((y >= 6) & (y <= 12), 1 - np.abs(x - 9.3 + (y - 6) * 0.3) / 1.2, 0)
    return np.asarray(np.clip(np.maximum(ring, tail), 0, 1).round(4).ravel())
