"""What a site feeds its machine where parts differ: regions by its own plan only, and a share of noise for each."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from flwr.app import RecordDict

from clients.secure import SecureSite, Trained
from privacy.dp.plan import DistributedPlan
from privacy.errors import RemoteProtocolError
from privacy.secagg import coordinator, effects, wire
from privacy.secagg.context import (
    Block,
    Durations,
    Region,
    Roster,
    RoundContext,
    model_root,
    region_digest,
    thresholds,
)
from privacy.secagg.suite import RealSuite
from privacy.store.admissions import Admissions
from simulations.job import Job, resolve
from simulations.options import Options
from strategies.fed_avg import FedAvg
from strategies.regions import HeldRegion
from strategies.secure_sum import BITS, context_regions, plan_digest, values_digest
from tests.privacy.secagg.parties import identity, seeded

HOSPITALS = resolve(Options(scenario="hospitals-parts", privacy="none"))
INNER, OUTER = HOSPITALS.plan.regions()
WIDE, NARROW = "cleveland", "switzerland"
MODEL = np.arange(HOSPITALS.plan.layout.size, dtype=np.float32)
ROSTER = Roster(1, {site: identity(site).public_key for site in HOSPITALS.sites})


def context_of(job: Job, regions: Sequence[Region], root: bytes = bytes(32)) -> RoundContext:
    return RoundContext(
        federation="town", run=bytes(16), round=1, attempt=1, roster=ROSTER.digest, cohort=tuple(sorted(job.sites)),
        thresholds=thresholds(len(job.sites)), bits=BITS, fraction_bits=job.encoding.fraction_bits,
        regions=tuple(regions), model_root=root, job=bytes(32), purpose="training", asset="records",
        durations=Durations(10, 10, 10, 10), fixed_set=False,
    )  # fmt: skip


def proposed(chosen: Sequence[HeldRegion]) -> tuple[Region, ...]:
    return context_regions(chosen, FedAvg.declared, 1, HOSPITALS.encoding)


def trained(job: Job, site: str, model: npt.NDArray[np.float32]) -> Trained:
    """Returns zeros to be summed, with a share of noise where the job has one; nothing was trained."""
    held, noise = job.plan.held_by(site), job.sum_plan
    units = np.zeros(held.size, np.int64)
    share = None
    if isinstance(noise, DistributedPlan):
        entropy = seeded(site)

        def share(size: int, survivors: int) -> npt.NDArray[np.int64]:
            return noise.share(size, survivors, entropy)

    return Trained(
        {"update": units},
        {"model": model[held]},
        job.plan,
        FedAvg.declared,
        lambda _state: None,
        1,
        job.encoding,
        share=share,
    )


class TestAContext:
    """A site takes part in the regions of its own plan, or in fewer of them."""

    def answer(self, folder: Path, site: str, regions: Sequence[Region], values: Sequence[HeldRegion]) -> bytes:
        """Lets a site answer a START for those regions, with the model's values in ``values``."""
        digests = tuple(
            region_digest(k, each.length, each.holders, values_digest({"model": MODEL[held.positions]}))
            for k, (each, held) in enumerate(zip(regions, values, strict=True))
        )
        context = context_of(HOSPITALS, regions, model_root(plan_digest(HOSPITALS.plan, FedAvg.declared), digests))
        config = coordinator.CoordinatorConfig(context, ROSTER, digests, RealSuite())
        _, out = coordinator.step(config, coordinator.CoordinatorState(), effects.Begin())
        (data,) = [each.data for each in out if isinstance(each, effects.SendTo) and each.site == site]
        own = trained(HOSPITALS, site, MODEL)
        own = replace(own, units={"update": own.units["update"] + 1})
        machine = SecureSite(site, identity(site), ROSTER, Admissions(folder / "site.db"), lambda: 0.0)
        return machine.start(
            data, own, RecordDict(), paid=(context.round, context.attempt), most=3, job="00" * 32, entropy=seeded(site)
        )

    @pytest.mark.parametrize("site", [WIDE, NARROW])
    @pytest.mark.parametrize("chosen", [[INNER, OUTER], [INNER]], ids=["all", "one left out"])
    def test_of_the_plans_regions_is_answered_with_keys(
        self, site: str, chosen: list[HeldRegion], tmp_path: Path
    ) -> None:
        assert isinstance(wire.decode(self.answer(tmp_path, site, proposed(chosen), chosen)), wire.Adv)

    @pytest.mark.parametrize("site", [WIDE, NARROW])
    @pytest.mark.parametrize("change", ["holders", "fewer holders", "length", "order", "one more", "twice"])
    def test_of_other_regions_is_refused_in_plain_words(self, site: str, change: str, tmp_path: Path) -> None:
        inner, outer = proposed([INNER, OUTER])
        other = tuple(sorted({*outer.holders, NARROW} - {"va"}))
        small = Block(5, inner.blocks[0].bound)
        changed = {
            "holders": (inner, Region(other, outer.blocks)),
            "fewer holders": (Region(outer.holders, inner.blocks), outer),
            "length": (Region(inner.holders, (small,)), outer),
            "order": (outer, inner),
            "one more": (inner, outer, Region(other, (small,))),
            "twice": (inner, outer, outer),
        }[change]
        values = [{56: INNER, 168: OUTER}.get(each.length, INNER) for each in changed]
        with pytest.raises(RemoteProtocolError, match=f"{site} agreed to another plan of who holds what"):
            self.answer(tmp_path, site, changed, values)

    def test_of_other_regions_that_the_site_does_not_hold_is_refused_too(self, tmp_path: Path) -> None:
        """The narrow site holds nothing of the outer region: by its plan alone it knows who does, and how much."""
        inner, outer = proposed([INNER, OUTER])
        longer = Region(outer.holders, (Block(outer.length + 1, outer.blocks[0].bound),))
        with pytest.raises(RemoteProtocolError, match="another plan"):
            self.answer(tmp_path, NARROW, (inner, longer), [INNER, OUTER])


class TestSharesOfNoise:
    """Ten agents hold the inner units, five the outer ones; three may be missing, three more in league.

    A region is opened with at least ``min_cover`` holders, and with as many as drop-outs leave of them. Less the
    colluders, that is whose noise the claim counts on: the shares of exactly so many are added up here.
    """

    JOB = resolve(
        Options(scenario="digits-width", privacy="distributed", epsilon=Decimal(50), settings={"unit": "site"})
    )

    def drawn(self) -> dict[int, npt.NDArray[np.float64]]:
        """Returns every holder's share of every region: by number, shape ``(holders, length)``."""
        job, regions = self.JOB, self.JOB.plan.regions()
        context = context_of(job, context_regions(regions, FedAvg.declared, 1, job.encoding))
        model = np.zeros(job.plan.layout.size, np.float32)
        vectors = {site: trained(job, site, model).local_input(site, context).vectors for site in job.sites}
        return {
            k: np.array([vectors[site][k] for site in job.sites if site in each.holders], np.float64)
            for k, each in enumerate(regions)
        }

    def test_the_fewest_that_are_counted_on_bring_what_the_event_says(self) -> None:
        plan, limits, shares = self.JOB.sum_plan, thresholds(10), self.drawn()
        assert isinstance(plan, DistributedPlan)
        assert (limits.n_c, limits.min_survivors, limits.min_cover) == (3, 7, 5)
        needed, counted = float(plan.event(1).variance), {}
        for k, drawn in shares.items():
            holders, size = drawn.shape
            counted[holders] = max(5, holders - 3) - 3
            least = drawn[: counted[holders]].sum(axis=0).var()
            # Five deviations of a sample variance below the claim, and not far above it: noise costs accuracy.
            assert abs(least / needed - 1) < 5 * np.sqrt(2 / size), f"region {k} of {holders} holders"
            assert drawn.sum(axis=0).var() > needed
        assert counted == {5: 2, 10: 4}

    def test_more_holders_take_smaller_shares(self) -> None:
        per_share = {len(drawn): drawn.var() for drawn in self.drawn().values()}
        assert per_share[5] / per_share[10] == pytest.approx(2.0, rel=0.05)

    def test_every_holder_draws_its_own(self) -> None:
        for drawn in self.drawn().values():
            assert np.abs(np.corrcoef(drawn) - np.eye(len(drawn))).max() < 6 / np.sqrt(drawn.shape[1])
