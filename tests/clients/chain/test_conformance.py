"""The noise on what crosses a chain is tested where a chain begins: correct code passes, every defect is found."""

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from clients.chain import released
from clients.chain.conformance import check_chain
from clients.conformance import check_release_paths
from clients.float_noise import add_gaussian
from clients.sites import site_of
from privacy.dp.noise import Entropy
from privacy.errors import PrivacyError
from strategies.chain_job import chain_of
from strategies.chain_plan import ChainPlan
from strategies.release import Release, UnsafeRelease
from tests.clients.chain.test_agent import ALBA, cut, records
from tests.clients.example import Keys
from tests.strategies.test_chain_job import CHAIN, DEEP, NOISY

CUT = DEEP + CHAIN + NOISY
NOISED: Callable[[Tensor, Release, Entropy], Tensor] = released.noised


def plan(**changes: Any) -> ChainPlan:
    made = chain_of(cut("record", text=CUT, local_steps=1), ALBA)
    (release,) = made.releases
    return replace(made, releases=(replace(release, **changes),))


def of_batch(values: Tensor, release: Release, entropy: Entropy) -> Tensor:
    """Clips the micro-batch as a whole."""
    flat = values.reshape(1, -1)
    return NOISED(flat, release, entropy).reshape(values.shape)


def unclipped(values: Tensor, release: Release, entropy: Entropy) -> Tensor:
    noise = NOISED(values * 0, release, entropy)
    return values.nan_to_num(posinf=0.0, neginf=0.0) + noise


def seeded(values: Tensor, release: Release, _entropy: Entropy) -> Tensor:
    return NOISED(values, release, bytes)


def less(share: float) -> Callable[[Tensor, Release, Entropy], Tensor]:
    return lambda values, release, entropy: NOISED(values, replace(release, noise=release.noise * share), entropy)


def one_draw(values: Tensor, release: Release, entropy: Entropy) -> Tensor:
    """Every entry gets the same noise."""
    clean = NOISED(values, replace(release, noise=1e-9), entropy)
    return clean + (
        NOISED(values[:1, :1], release, entropy) - NOISED(values[:1, :1], replace(release, noise=1e-9), bytes)
    )


DEFECTS: dict[str, tuple[Callable[[Tensor, Release, Entropy], Tensor], str]] = {
    "nothing is done": (lambda values, _release, _entropy: values, "A1"),
    "noise halved": (less(0.5), "A1"),
    "noise 5 % less": (less(0.95), "A1"),
    "seed fixed": (seeded, "A3"),
    "one draw for all": (one_draw, "A[123]"),
    "clipping off": (unclipped, "A4"),
    "clipping of the batch": (of_batch, "A4"),
}


@pytest.mark.parametrize("terms", [{}, {"noise": 1e-9}, {"noise": 1e6, "clip": 1e6}, {"clip": 1e-12}], ids=str)
def test_correct_code_passes(terms: dict[str, float]) -> None:
    check_chain(plan(**terms), Keys(str(terms)), who="alba")


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found_where_a_run_begins(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    instead, test = DEFECTS[defect]
    site = site_of(cut("record", text=CUT, local_steps=1), ALBA, records())
    assert check_release_paths(site, Keys(defect))
    monkeypatch.setattr(released, "noised", instead)
    with pytest.raises(PrivacyError, match=f"alba takes no part: its local noise fails {test}"):
        check_release_paths(site, Keys(defect))


def test_a_short_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(total: Tensor, sigma: float, entropy: Entropy) -> None:
        add_gaussian(total, sigma, lambda n_bytes: (entropy(n_bytes)[:4] * n_bytes)[:n_bytes])

    monkeypatch.setattr(released, "add_gaussian", short)
    with pytest.raises(PrivacyError, match="A3, every key byte counts"):
        check_chain(plan(), Keys("short"), who="alba")


def test_where_nothing_is_noised_nothing_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan()
    (release,) = made.releases
    bare = replace(made, releases=(UnsafeRelease(release.owner, release.to, release.what, "made up"),))
    monkeypatch.setattr(released, "noised", DEFECTS["nothing is done"][0])
    check_chain(bare, secrets.token_bytes, who="alba")
