"""The one-run audit against the production path, and against that path patched. Its rows: `simulations.bench.audit`."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from numpy.typing import NDArray

from clients import clipping, training
from clients.float_noise import add_gaussian
from clients.one_run import audit_path, noise_over_run
from privacy.attacks.canaries import included
from privacy.audit import canary_file
from privacy.audit.attack_claims import DEFECTS, Evidence, one_run_claim
from privacy.dp import mechanism
from privacy.dp import plan as plans
from privacy.dp.plan import PrivacyPlan, Unit
from privacy.errors import ConfigError, UnsupportedEventError
from simulations.bench.audit import SUBJECTS
from tests.clients.example import Keys, plan

RECORD, SITE = SUBJECTS["record, integer path"].plan, SUBJECTS["site"].plan
DISTRIBUTED = SUBJECTS["distributed, unit site"].plan
PATIENT = replace(RECORD, unit=Unit.PATIENT)
SEED = hashlib.sha256(b"canaries").digest()
CANARIES = 512
"""An eighth of what a real audit has: quick, and still enough to find noise that is halved."""

Patch = Callable[[pytest.MonkeyPatch], None]


def claimed(of: PrivacyPlan, *, floating: bool = False, canaries: int = CANARIES, salt: str = "") -> Evidence:
    audit = audit_path(of, seed=SEED, entropy=Keys(salt), canaries=canaries, floating=floating)
    return one_run_claim([audit], seed=SEED)


def path(of: PrivacyPlan, *, floating: bool = False, canaries: int = CANARIES) -> dict[str, Any]:
    found: dict[str, Any] = claimed(of, floating=floating, canaries=canaries).claim["paths"][0]
    return found


CORRECT = {
    **{name: (subject.plan, subject.floating) for name, subject in SUBJECTS.items()},
    "patients": (PATIENT, False),
    "drawn batches, audited full": (plan(rate="0.1", noise="4", steps=4, attempts=4), False),
}


@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_path_shows_no_violation_and_every_broken_copy_is_found_out(name: str) -> None:
    of, floating = CORRECT[name]
    found = path(of, floating=floating)
    assert (found["verdict"], found["formal"]) == ("no violation", "4.3772")
    assert Decimal(found["noise_multiplier"]) == 1
    assert found["path"] == ("float" if floating else "integer")
    assert [(control["defect"], control["fired"]) for control in found["controls"]] == [(one, True) for one in DEFECTS]
    # In units of the clip: a canary of any length counts 1, and noise of 16 executions together is 1 as well.
    pair = {name: float(found["measurement"]["pair"][name]) for name in ("mean_in", "mean_out", "variance")}
    assert pair == pytest.approx({"mean_in": 1.0, "mean_out": 0.0, "variance": 1.0}, abs=0.3)
    by_defect = {control["defect"]: control["measurement"]["pair"] for control in found["controls"]}
    assert float(by_defect["noise halved"]["variance"]) == pytest.approx(0.25, abs=0.05)
    assert float(by_defect["clipping off"]["mean_in"]) == pytest.approx(20.0, abs=0.3)
    assert float(by_defect["clipping off"]["variance"]) == pytest.approx(1.0, abs=0.3)


def test_many_executions_are_audited_as_one() -> None:
    assert noise_over_run(plan(noise="3", steps=3, attempts=5)) == Decimal("0.774596669241")  # 3 / sqrt(15)
    assert noise_over_run(RECORD) == noise_over_run(SITE) == noise_over_run(DISTRIBUTED) == 1


def test_the_claim_fits_its_schema_and_rests_on_its_scores() -> None:
    evidence = claimed(RECORD, canaries=128)
    schema = json.loads(files("privacy.audit").joinpath("schemas", "privacy-audit-v1.json").read_text("utf-8"))
    Draft202012Validator({"$ref": "#/$defs/audit_one_run", "$defs": schema["$defs"]}).validate(evidence.claim)
    assert hashlib.sha256(evidence.lines).hexdigest() == evidence.claim["scores_sha256"]
    scores = canary_file.scores_of(evidence.lines)["local/integer/noise off"]
    # Without noise, scores are the coins that were committed to.
    assert np.array_equal(scores > 0.5, included(SEED, 128))


def test_all_that_is_random_comes_from_the_keys_and_the_seed() -> None:
    first, again, other = (claimed(RECORD, canaries=128, salt=salt).claim for salt in ("", "", "other"))
    assert first == again
    assert first["scores_sha256"] != other["scores_sha256"]


def test_an_audit_whose_controls_stay_silent_is_inconclusive() -> None:
    weak = replace(RECORD, noise_multiplier=Decimal(160))  # 64 canaries drown in noise of 40 clips
    found = path(weak, canaries=64)
    assert found["verdict"] == "inconclusive"
    assert [one["fired"] for one in found["controls"]] == [False, True, False, True]


def test_a_path_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnsupportedEventError):
        claimed(SITE, floating=True)
    with pytest.raises(UnsupportedEventError):
        claimed(RECORD, canaries=4097)
    with pytest.raises(ConfigError):  # so much noise leaves no room on the grid
        claimed(replace(DISTRIBUTED, noise_multiplier=Decimal(10**5)))


# The production code patched. What is patched is looked up where the path looks it up, so the copies have it, too.


def halved(module: Any, name: str) -> Patch:
    """Half the noise from an exact sampler whose first argument is sigma, or a variance."""
    less, real = {"rounded_gaussian_exact": 2, "skellam_exact": 4}[name], getattr(module, name)
    return lambda patch: patch.setattr(module, name, lambda spread, *more: real(spread / less, *more))


def off(module: Any, name: str) -> Patch:
    return lambda patch: patch.setattr(module, name, lambda _spread, size, _keys: np.zeros(size, np.int64))


def seeded(module: Any, name: str) -> Patch:
    real = getattr(module, name)
    return lambda patch: patch.setattr(module, name, lambda spread, size, _keys: real(spread, size, bytes))


def float_noise(share: float, *, keys: bool = True) -> Patch:
    def add(total: Any, sigma: float, entropy: Any) -> None:
        add_gaussian(total, share * sigma, entropy if keys else bytes)

    return lambda patch: patch.setattr(clipping, "add_gaussian", add)


def unclipped(patch: pytest.MonkeyPatch) -> None:
    def constrain(self: mechanism.ClippedSum, per_record: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.asarray(np.trunc(per_record * (self.grid / self.clip)).astype(np.int64).sum(axis=0))

    patch.setattr(mechanism.ClippedSum, "constrain", constrain)


def unclipped_floats(patch: pytest.MonkeyPatch) -> None:
    real = clipping.Clipping.sum

    def unclipped_sum(self: clipping.Clipping, x: Any, y: Any, *, clip: float, **more: Any) -> Any:
        return real(self, x, y, clip=1000 * clip, **more)

    patch.setattr(clipping.Clipping, "sum", unclipped_sum)


def clipped_by_record(patch: pytest.MonkeyPatch) -> None:
    """Two records of a patient count twice."""
    patch.setattr(training, "_by_unit", lambda per_record, _sizes: per_record)


GAUSSIAN = (mechanism, "rounded_gaussian_exact")
OPENED = (plans, "rounded_gaussian_exact")
SKELLAM = (plans, "skellam_exact")
PATCHED: dict[str, tuple[PrivacyPlan, bool, Patch]] = {
    "record, noise halved": (RECORD, False, halved(*GAUSSIAN)),
    "record, noise off": (RECORD, False, off(*GAUSSIAN)),
    "record, seed fixed": (RECORD, False, seeded(*GAUSSIAN)),
    "record, clipping off": (RECORD, False, unclipped),
    "patient, a clip for every record": (PATIENT, False, clipped_by_record),
    "float, noise halved": (RECORD, True, float_noise(0.5)),
    "float, noise off": (RECORD, True, float_noise(1e-9)),
    "float, seed fixed": (RECORD, True, float_noise(1.0, keys=False)),
    "float, clipping off": (RECORD, True, unclipped_floats),
    "site, noise halved": (SITE, False, halved(*OPENED)),
    "site, clipping off": (SITE, False, unclipped),
    "distributed, noise halved": (DISTRIBUTED, False, halved(*SKELLAM)),
    "distributed, noise off": (DISTRIBUTED, False, off(*SKELLAM)),
    "distributed, seed fixed": (DISTRIBUTED, False, seeded(*SKELLAM)),
    "distributed, clipping off": (DISTRIBUTED, False, unclipped),
}


@pytest.mark.parametrize("name", PATCHED)
def test_a_patched_production_path_is_a_violation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of, floating, apply = PATCHED[name]
    apply(monkeypatch)
    assert path(of, floating=floating)["verdict"] == "violation"
