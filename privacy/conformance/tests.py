"""All tests of one release path, and the controls that show that they can fail.

What a passing path does not show: that the records themselves, or what is trained from them, are treated as the made-up
vectors are; timing; and that the same code runs in the training that follows.

See: shared error level by Bonferroni; the tests A1 to A8 after Ding et al., CCS 2018, and Annamalai and De Cristofaro,
NeurIPS 2024, who audit implementations by their releases.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from privacy.conformance import noise, sampling, sensitivity
from privacy.conformance.defects import ALTERED, Defect, fires
from privacy.conformance.path import Arithmetics, Clips, PathOf, Placement
from privacy.conformance.results import FAMILY_ERROR, Result
from privacy.dp.events import SamplingType
from privacy.dp.noise import Entropy
from privacy.dp.plan import RecordPlan

EVENTS = ("A8", "events and noise calls")
"""The one test that takes a site, not a path: who tests the site adds it."""

_OF_NOISE = (
    ("A1", "noise scale"),
    ("A2", "noise shape"),
    ("A3", "neighbouring entries"),
    ("A3", "successive releases"),
    ("A3", "repeated noise"),
    ("A3", "every key byte counts"),
    ("A5", "empty batch"),
)
DRAWS: Mapping[str, int] = MappingProxyType(
    {
        "noise scale": noise.RELEASES * noise.DIMENSION,
        "noise shape": noise.RELEASES * noise.DIMENSION,
        "neighbouring entries": noise.RELEASES * (noise.DIMENSION - 1),
        "successive releases": (noise.RELEASES - 1) * noise.DIMENSION,
        "batch sizes": sampling.DRAWS,
        "takings of each group": sampling.GROUPS,
    }
)
"""How many draws each test that goes by chance takes: with fewer, anything passes."""

_OF_SAMPLING = (("A6", "batch sizes"), ("A6", "takings of each group"))
_OF_GRID = (("A7", "longest vector on the grid"), ("A7", "sum on the grid"))


@dataclass(frozen=True)
class Conformance:
    """What was found about one release path. All fields are public.

    Attributes:
      placement: Where its noise is added.
      path: How vectors are clipped and summed.
      tests: Each with its result.
      controls: For each defect, whether it was found.
    """

    placement: Placement
    path: Arithmetics
    tests: tuple[Result, ...]
    controls: tuple[tuple[Defect, bool], ...]

    @property
    def failed(self) -> tuple[Result, ...]:
        """The tests that did not pass."""
        return tuple(each for each in self.tests if not each.passed)

    def to_json(self) -> dict[str, Any]:
        """Returns the object of a report, but for the site's name."""
        return {
            "placement": self.placement,
            "path": self.path,
            "tests": [each.to_json() for each in self.tests],
            "controls": [{"defect": defect, "fired": fired} for defect, fired in self.controls],
        }


def conformance_of(path_of: PathOf, entropy: Entropy, *, noised: bool = True) -> Conformance:
    """Tests a path, and the same path with each defect.

    Args:
      path_of: Builds it; its rate of sampling is `sampling.within_reach`.
      entropy: Randomness, in production ``secrets.token_bytes``.
      noised: Whether whoever asks adds the noise; where another does, only clipping is tested.
    """
    path = path_of(sensitivity.DIMENSION, sampling.GROUPS)
    rate = rate_of(path.plan)
    n_units, error = sampling.n_units(rate), error_of_each(poisson=rate is not None)
    tests = [sensitivity.influence_test(path_of(sensitivity.DIMENSION, n_units), entropy)]
    if noised:
        tests += noise.noise_tests(path_of(noise.DIMENSION, 1), entropy, error)
        tests.append(noise.key_test(path_of, n_units, entropy))
    if rate is not None:
        tests += sampling.sampler_tests(path_of, rate, entropy, error)
    elif path.placement == "local":
        tests.append(sampling.denominator_test(path_of, entropy))
    if path.grid is not None:
        tests += sensitivity.grid_tests(path.grid)
    controls = tuple((each, fires(each, path_of, n_units, entropy, error)) for each in defects(noised=noised))
    return Conformance(path.placement, path.path, tuple(sorted(tests, key=lambda each: each.test)), controls)


def rate_of(plan: Clips) -> float | None:
    """Returns the rate of Poisson sampling, or ``None`` where all units take part."""
    if isinstance(plan, RecordPlan) and plan.sampling.type is SamplingType.POISSON:
        return float(plan.sampling.rate)
    return None


def error_of_each(*, poisson: bool) -> float:
    """Returns the error of each test that goes by chance: four, and two of Poisson sampling."""
    return FAMILY_ERROR / (6 if poisson else 4)


def defects(*, noised: bool) -> tuple[Defect, ...]:
    """Returns the controls of a path."""
    return tuple(ALTERED) if noised else ("clipping off",)


def expected(placement: Placement, path: Arithmetics, *, poisson: bool, noised: bool) -> frozenset[tuple[str, str]]:
    """Returns test and name of all that is tested of a path: what a statement about it must hold.

    Args:
      placement: Where its noise is added.
      path: How vectors are clipped and summed.
      poisson: Whether units are drawn by coins.
      noised: Whether it is the statement of whoever adds the noise.
    """
    return frozenset(
        (("A4", "largest influence"),)
        + (_OF_NOISE if noised else ())
        + ((("A5", "denominator"), EVENTS) if placement == "local" else ())
        + ((EVENTS,) if placement == "distributed" else ())
        + (_OF_SAMPLING if poisson else ())
        + (_OF_GRID if path == "integer" else ())
    )
