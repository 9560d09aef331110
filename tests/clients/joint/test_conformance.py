"""The noise on joint answers is tested before a process serves any: correct code passes, every defect is found."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import clients.joint.terms
from clients.channel.credentials import Identity
from clients.joint.conformance import check_answers
from clients.joint.serving import services_of
from clients.joint.terms import Terms
from privacy.dp.noise import Entropy, skellam_exact
from privacy.errors import PrivacyError
from tests.clients.example import Keys
from tests.clients.joint.scene import AGENTS, NOISE, clinics
from tests.federation import Federation

Shares = Callable[[Any, int, Entropy], Any]
UNEQUAL = dict(zip(AGENTS, (1, 3, 1, 2), strict=True))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return clinics(tmp_path_factory.mktemp("noisy") / "fed", noise=NOISE)


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return clinics(tmp_path_factory.mktemp("unequal") / "fed", noise=NOISE, weights=UNEQUAL)


def check(made: Federation, salt: str = "") -> None:
    check_answers(made.charter, made.study, Keys(salt), who="alba")


def test_correct_code_passes(noisy: Federation, unequal: Federation) -> None:
    check(noisy)
    check(unequal)


SHARES: dict[str, tuple[Shares, str]] = {
    "noise off": (lambda _variance, size, entropy: np.zeros(size, np.int64) * len(entropy(32)), "A1"),
    "noise halved": (lambda variance, size, entropy: skellam_exact(variance / 4, size, entropy), "A1"),
    "noise 5 % less": (lambda variance, size, entropy: skellam_exact(variance * 0.95**2, size, entropy), "A1"),
    "seed fixed": (lambda variance, size, _entropy: skellam_exact(variance, size, bytes), "A[13]"),
}


@pytest.mark.parametrize("defect", SHARES)
def test_a_defect_of_the_noise_is_found(defect: str, noisy: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    instead, test = SHARES[defect]
    monkeypatch.setattr(clients.joint.terms, "skellam_exact", instead)
    with pytest.raises(PrivacyError, match=f"alba takes no part: its distributed noise fails {test}"):
        check(noisy, defect)


def test_answers_that_count_for_more_than_was_priced_are_found(
    unequal: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = Terms.units

    def doubled(terms: Terms, scores: Any, site: str, entropy: Entropy) -> Any:
        apart = units(terms, scores, site, bytes) - units(terms, np.eye(terms.classes)[[0] * len(scores)], site, bytes)
        return units(terms, scores, site, entropy) + apart

    monkeypatch.setattr(Terms, "units", doubled)
    with pytest.raises(PrivacyError, match="fails A4, largest influence"):
        check(unequal, "doubled")


def test_a_process_that_would_answer_with_too_little_noise_does_not_begin(
    noisy: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def now() -> datetime:
        return datetime.now(UTC)

    folder = noisy.folders["alba"]
    monkeypatch.setattr(clients.joint.terms, "skellam_exact", SHARES["noise off"][0])
    with pytest.raises(PrivacyError, match="takes no part"):
        services_of(folder, Identity.of_folder(folder, now), noisy.study, cast("Any", None), now)


def test_without_noise_there_is_nothing_to_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients.joint.terms, "skellam_exact", SHARES["noise off"][0])
    check(clinics(tmp_path / "fed"))
