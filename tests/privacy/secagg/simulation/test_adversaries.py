"""Every scripted attack has the outcome that it must have, and opens nothing that the specification forbids."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from privacy.secagg.admission import LocalInput
from privacy.secagg.context import RoundContext
from privacy.secagg.effects import Finished
from privacy.secagg.wire import Message, Start
from tests.privacy.secagg.simulation import adversaries, adversaries_sets, adversaries_shares
from tests.privacy.secagg.simulation.adversaries import COHORT, VICTIM, Case, quiet, without
from tests.privacy.secagg.simulation.site import Store
from tests.privacy.secagg.simulation.world import Interference, World

CASES = (
    *(*adversaries.KEYS, *adversaries_shares.SHARES, *adversaries_shares.VECTORS),
    *(*adversaries_sets.SETS, *adversaries_sets.CONTEXTS, *adversaries_sets.ORDER),
)


def run(case: Case) -> World:
    return World(case.schedule or quiet(), case.script()).run(attempts=1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_scripted_attack_has_its_outcome(case: Case) -> None:
    world = run(case)
    assert not world.violations
    for attempt in world.attempts:
        survivors = frozenset(attempt.end.survivors) if isinstance(attempt.end, Finished) else None
        assert survivors == case.survivors, attempt.end
    assert case.dropped <= set(world.attempts[-1].audits)
    if case.survivors is not None:
        assert {who for _, who in world.attempts[-1].audits} == {who for _, who in case.dropped}
    for site, named in case.stopped.items():
        aborted = world.sites[site].aborted()
        assert aborted is not None, f"{site} did not stop"
        assert aborted.site == named
        assert case.unsent not in world.sites[site].kinds()
    if not case.stopped and case.survivors == frozenset(COHORT):
        assert all(site.aborted() is None for site in world.sites.values())


def test_an_all_zero_update_stays_at_home() -> None:
    """Its region's sum would be the update of the others alone (§3.5)."""
    world = World(quiet())

    def zero(context: RoundContext) -> LocalInput:
        own = world.schedule.own(VICTIM, context)
        return replace(own, vectors={k: np.zeros_like(v) for k, v in own.vectors.items()})

    world.sites[VICTIM].inputs = zero
    world.run(attempts=1)
    assert not world.violations
    assert [set(end.survivors) for end in world.finished] == [without(VICTIM)]
    assert "MSK" not in world.sites[VICTIM].kinds()
    assert len(world.sites[VICTIM].store.debits) == 1


class RestoredStore(Interference):
    """Takes a site's store back to before the attempt, kills the site, and starts it again in the same attempt."""

    done = False
    start = b""

    def to_site(self, world: World, site: str, message: Message) -> list[Message | bytes]:
        victim = world.sites[VICTIM]
        if site == VICTIM and not isinstance(message, Start) and not self.done:
            self.done = True
            victim.crash()
            victim.restart()
            victim.store = Store()
            return [self.start, message]
        if site == VICTIM and isinstance(message, Start):
            self.start = message.encode()
        return [message]


def test_a_restored_store_lets_a_site_advertise_again_and_opens_nothing() -> None:
    """Nothing tells a site that its disk is an old one; other sites have its first keys and go on without it."""
    world = World(quiet(), RestoredStore()).run(attempts=1)
    assert [what for what in world.violations if "advertises" not in what] == []
    assert any("advertises" in what for what in world.violations)
    assert [set(end.survivors) for end in world.finished] == [without(VICTIM)]


def test_with_its_store_a_restarted_site_refuses_the_attempt() -> None:
    class Restarted(RestoredStore):
        def to_site(self, world: World, site: str, message: Message) -> list[Message | bytes]:
            kept = world.sites[VICTIM].store
            out = super().to_site(world, site, message)
            world.sites[VICTIM].store = kept
            return out

    world = World(quiet(), Restarted()).run(attempts=1)
    assert not world.violations
    assert [set(end.survivors) for end in world.finished] == [without(VICTIM)]
    aborted = world.sites[VICTIM].aborted()
    assert aborted is not None
    assert "admitted before" in aborted.reason


@dataclass
class Recorder(Interference):
    """Keeps what it carries, and carries what another one kept as well."""

    kept: list[tuple[str, str, bytes]] = field(default_factory=list)
    before: list[tuple[str, str, bytes]] = field(default_factory=list)

    def to_site(self, world: World, site: str, message: Message) -> list[Message | bytes]:
        del world
        self.kept.append(("site", site, message.encode()))
        return [*(data for *ends, data in self.before if ends == ["site", site]), message]

    def to_server(self, world: World, site: str, message: Message) -> list[Message | bytes]:
        del world
        self.kept.append(("server", site, message.encode()))
        return [*(data for *ends, data in self.before if ends == ["server", site]), message]


def test_messages_of_another_run_change_nothing() -> None:
    one, other = Recorder(), quiet(run=b"2" * 16)
    World(quiet(run=b"1" * 16), one).run()
    world = World(replace(other, seed=2), Recorder(before=one.kept)).run(attempts=1)
    assert not world.violations
    assert [set(end.survivors) for end in world.finished] == [set(COHORT)]
