"""The claim ``audit.one_run``: canaries in one release of each production path, everything else known to the attacker.

The attacker of the definition of differential privacy knows all but one contribution and subtracts them, so a canary's
score is what the release shows in its own coordinate. Broken copies of the path are measured the same way: had they
not been found out, finding nothing in the correct one would mean nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from privacy.attacks import canaries, gaussian_pair, one_run
from privacy.attacks.gaussian_pair import Pair, Shape
from privacy.audit import canary_file
from privacy.audit.figures import epsilon_text, figure
from privacy.audit.measured import bounds, canary_claims
from privacy.audit.measured.canary_claims import Evidence
from privacy.audit.measured.formal import noise_over_run
from privacy.audit.statement import Statement
from privacy.dp.accounting import round_up

ONE_RUN = "audit.one_run"

Defect = Literal["noise halved", "noise off", "clipping off", "seed fixed"]
DEFECTS: tuple[Defect, ...] = ("noise halved", "noise off", "clipping off", "seed fixed")
"""Ways in which the copies are broken; each has to be found out every time."""

_PLAIN, _SURE = 0.95, 0.999
_VERDICT_BY = ("steinke", "fdp", "pair_999")
_SMALLEST_NOISE = Decimal("0.001")
_WRITTEN = Decimal("0.000000000001")
_TOLERANCE = Decimal("0.000000001")
_NOISE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Measurement:
    """What one path released; all fields are public once the audit is over.

    Attributes:
      scores: Shape ``(m,)``, finite, in units of the clip: the release in each canary's own coordinate.
      shape: Test of a release of nothing, ``gaussian_pair.shape_of``.
      repeated: Whether a second release had the same noise.
    """

    scores: npt.NDArray[np.float64]
    shape: Shape
    repeated: bool


@dataclass(frozen=True)
class PathAudit:
    """One release path with its broken copies; all fields are public.

    Attributes:
      placement: Where the noise is added.
      path: Whether clipping and sum are in whole numbers.
      noise_multiplier: Of the one release that stands for the whole run: the plan's over the root of
        ``max_executions``.
      correct: The production path.
      controls: Broken copies of it, one for each of ``DEFECTS``.
    """

    placement: Literal["local", "central", "distributed"]
    path: Literal["integer", "float"]
    noise_multiplier: Decimal
    correct: Measurement
    controls: Mapping[Defect, Measurement]


def one_run_claim(audits: Sequence[PathAudit], *, seed: bytes) -> Evidence:
    """Builds the claim.

    Args:
      audits: At least one, each of another path, all with the same number of canaries, included by ``seed``.
      seed: What was committed to before; opened by this.

    Raises: ValueError: Scores that are no numbers, or too few canaries.
    """
    m = audits[0].correct.scores.size
    included = canaries.included(seed, m)
    lines = b"".join(
        canary_file.line(ONE_RUN, what, measured.scores) for audit in audits for what, measured in _measured(audit)
    )
    claim = {
        **canary_claims.head(ONE_RUN, seed, m, lines),
        "paths": [_path_json(audit, included) for audit in audits],
    }
    return Evidence(claim, lines)


def problems(claim: dict[str, Any], report: Statement, lines: bytes | None) -> Iterator[str]:
    """Yields what does not follow: bounds from counts, counts from scores if those are at hand, coins from the seed.

    Raises: FederationError: Nothing can follow from such numbers.
    """
    included = canary_claims.coins(claim)
    yield from canary_claims.misopened(claim)
    names = [(path["placement"], path["path"]) for path in claim["paths"]]
    if len(set(names)) != len(names):
        yield "a release path is audited twice"
    measured = dict(pair for path in claim["paths"] for pair in _listed(path))
    scores = canary_claims.scores_at_hand(claim, lines, measured) if lines is not None else {}
    for path in claim["paths"]:
        yield from _path_problems(path, included.size, report)
    for what, measurement in measured.items():
        found = _measurement_problems(measurement, included, scores.get(what))
        yield from (f"{what}: {problem}" for problem in found)


def verdict(claim: dict[str, Any]) -> bounds.Verdict:
    """Returns the verdict over all paths."""
    each = [_verdict(path) for path in claim["paths"]]
    return bounds.judged(exceeded="violation" in each, fired="inconclusive" not in each)


def summary(claim: dict[str, Any]) -> str:
    """Returns the line about a claim whose numbers follow."""
    return "; ".join(_path_summary(path, claim["canaries"]) for path in claim["paths"])


def _path_summary(path: dict[str, Any], m: int) -> str:
    name, lower = f"{path['placement']}/{path['path']}", path["measurement"]["lower"]
    pair = f", {lower['pair_999']} (Gaussian pair, 99.9 %)" if lower["pair_999"] is not None else ""
    text = (
        f"{name}: {m} canaries show an epsilon of at least {lower['steinke']} (Steinke), {lower['fdp']} (f-DP){pair} "
        f"where {path['formal']} is promised"
    )
    if path["measurement"]["repeated"]:
        text += "; two releases have the same noise"
    if pair == "":
        text += "; noise did not pass for Gaussian, so the Gaussian pair was not used"
    if bounds.powerless(path["ceiling"], path["formal"]):
        text += "; no power: counting guesses could not exceed the formal value even if all were right"
    silent = [control["defect"] for control in path["controls"] if not control["fired"]]
    if silent:
        return text + f"; inconclusive: {', '.join(silent)} was not found out"
    return text + f"; found out: {', '.join(control['defect'] for control in path['controls'])}"


def _measured(audit: PathAudit) -> Iterator[tuple[str, Measurement]]:
    name = f"{audit.placement}/{audit.path}"
    yield f"{name}/correct", audit.correct
    yield from ((f"{name}/{defect}", audit.controls[defect]) for defect in DEFECTS)


def _listed(path: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    name = f"{path['placement']}/{path['path']}"
    yield f"{name}/correct", path["measurement"]
    yield from ((f"{name}/{control['defect']}", control["measurement"]) for control in path["controls"])


def _path_json(audit: PathAudit, included: npt.NDArray[np.bool_]) -> dict[str, Any]:
    noise = audit.noise_multiplier.quantize(_WRITTEN)
    formal = _formal(noise)
    measured = {defect: _measurement_json(audit.controls[defect], included) for defect in DEFECTS}
    path = {
        "placement": audit.placement,
        "path": audit.path,
        "noise_multiplier": f"{noise:f}",
        "formal": formal,
        "ceiling": bounds.ceiling_json(included.size),
        "measurement": _measurement_json(audit.correct, included),
        "controls": [
            {"defect": defect, "measurement": one, "fired": _fired(defect, one, formal)}
            for defect, one in measured.items()
        ],
    }
    return {**path, "verdict": _verdict(path)}


def _measurement_json(measured: Measurement, included: npt.NDArray[np.bool_]) -> dict[str, Any]:
    scores, shape = canary_file.rounded(measured.scores), measured.shape
    guesses = bounds.guesses_json(one_run.tally(scores, included))
    pair = _pair_json(gaussian_pair.pair_of(scores, included)) if shape.passed else None
    return {
        "shape": {"n": shape.n, "statistic": figure(shape.statistic), "p_value": figure(shape.p_value)},
        "guesses": guesses,
        "pair": pair,
        "repeated": measured.repeated,
        "lower": {**bounds.counted(included.size, guesses), **_pair_bounds(pair)},
    }


def _pair_json(pair: Pair) -> dict[str, Any]:
    return {
        "n_in": pair.n_in,
        "n_out": pair.n_out,
        "mean_in": figure(pair.mean_in),
        "mean_out": figure(pair.mean_out),
        "variance": figure(pair.variance),
    }


def _pair_bounds(pair: dict[str, Any] | None) -> dict[str, str | None]:
    if pair is None:
        return {"pair": None, "pair_999": None}
    means = (float(pair[name]) for name in ("mean_in", "mean_out", "variance"))
    read, delta = Pair(pair["n_in"], pair["n_out"], *means), float(bounds.DELTA)
    return {
        "pair": epsilon_text(gaussian_pair.lower(read, delta, _PLAIN)),
        "pair_999": epsilon_text(gaussian_pair.lower(read, delta, _SURE)),
    }


def _formal(noise_multiplier: Decimal) -> str:
    return round_up(gaussian_pair.epsilon_of(1 / float(noise_multiplier), float(bounds.DELTA)))


def _exceeds(measurement: dict[str, Any], formal: str) -> bool:
    lower = [measurement["lower"][name] for name in _VERDICT_BY]
    return any(Decimal(bound) > Decimal(formal) for bound in lower if bound is not None)


def _fired(defect: str, measurement: dict[str, Any], formal: str) -> bool:
    return bool(measurement["repeated"]) if defect == "seed fixed" else _exceeds(measurement, formal)


def _verdict(path: dict[str, Any]) -> bounds.Verdict:
    measured, formal = path["measurement"], path["formal"]
    return bounds.judged(
        exceeded=measured["repeated"] or _exceeds(measured, formal),
        fired=all(_fired(one["defect"], one["measurement"], formal) for one in path["controls"]),
    )


def _path_problems(path: dict[str, Any], m: int, report: Statement) -> Iterator[str]:
    name, noise, formal = f"{path['placement']}/{path['path']}", Decimal(path["noise_multiplier"]), path["formal"]
    promised = [
        one for claim in report.epsilons if claim["placement"] == path["placement"] for one in noise_over_run(claim)
    ]
    if noise < _SMALLEST_NOISE:
        yield f"{name}: noise {noise} times the clip hides nothing"
        return
    if not any(abs(float(noise) / one - 1) <= _NOISE_TOLERANCE for one in promised):
        yield f"{name}: noise {noise} was audited, this run's claims name other noise"
    if not bounds.same_bound(formal, _formal(noise)):
        yield f"{name}: the formal value is {_formal(noise)}, not {formal}"
    if not bounds.same_bounds(path["ceiling"], bounds.ceiling_json(m)):
        yield f"{name}: {m} canaries cannot show what is said"
    if [control["defect"] for control in path["controls"]] != list(DEFECTS):
        yield f"{name}: not every broken copy was measured"
    for control in path["controls"]:
        if control["fired"] != _fired(control["defect"], control["measurement"], formal):
            yield f"{name}: whether {control['defect']} was found out is not what its bounds say"
    if path["verdict"] != _verdict(path):
        yield f"{name}: the verdict is '{_verdict(path)}' by the bounds, not '{path['verdict']}'"


def _measurement_problems(
    measurement: dict[str, Any], included: npt.NDArray[np.bool_], scores: canary_file.Scores | None
) -> Iterator[str]:
    m, shape, pair = included.size, measurement["shape"], measurement["pair"]
    p_value = Decimal(figure(gaussian_pair.shape_p_value(shape["n"], float(shape["statistic"]))))
    if abs(Decimal(shape["p_value"]) - p_value) > _TOLERANCE:
        yield "the p-value of the noise's shape does not follow from its statistic"
    if (pair is None) == (p_value >= Decimal(str(gaussian_pair.SHAPE_LEVEL))):
        yield "the Gaussian pair is used exactly if noise passes for Gaussian, and here it is not so"
    yield from bounds.miscounted(m, measurement["guesses"])
    if pair is not None and (pair["n_in"], pair["n_out"]) != (int(included.sum()), int((~included).sum())):
        yield "canaries were in that the seed leaves out"
    computed = {**bounds.counted(m, measurement["guesses"]), **_pair_bounds(pair)}
    if not bounds.same_bounds(measurement["lower"], computed):
        yield "the bounds are not what their statistics give"
    if scores is not None:
        yield from _score_problems(measurement, included, scores)


def _score_problems(
    measurement: dict[str, Any], included: npt.NDArray[np.bool_], scores: canary_file.Scores
) -> Iterator[str]:
    if bounds.guesses_json(one_run.tally(scores, included)) != measurement["guesses"]:
        yield "the right guesses are not those that the scores give"
    pair = measurement["pair"]
    if pair is not None:
        counted = _pair_json(gaussian_pair.pair_of(scores, included))
        numbers = ("mean_in", "mean_out", "variance")
        if any(
            abs(Decimal(pair[name]) - Decimal(counted[name])) > _TOLERANCE * (1 + abs(Decimal(counted[name])))
            for name in numbers
        ):
            yield "means and variance are not those of the scores"
