"""An attempt survives what it should: one site that falls silent, one message that comes late, a lossy network."""

from dataclasses import dataclass, replace

import pytest

from privacy.secagg.effects import Finished
from privacy.secagg.wire import Adv, Fwd, Keys, Message, Msk, Shr
from tests.privacy.secagg.simulation.adversaries import COHORT, LAST, Script, at, quiet, without
from tests.privacy.secagg.simulation.schedule import Network, Schedule
from tests.privacy.secagg.simulation.world import Interference, World


def silent(kind: type[Message]) -> Script:
    return Script(server=at(kind, lambda *_: None, LAST))


def slow(seed: int = 1, **network: float) -> Schedule:
    return replace(quiet(), seed=seed, suite="ideal", network=Network(**network))


@pytest.mark.parametrize("kind", [Adv, Shr, Msk], ids=lambda kind: kind.kind)
@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_a_silent_site_is_a_drop_out_if_the_server_is_quicker_than_the_sites(kind: type[Message], delay: float) -> None:
    world = World(slow(delay=delay), silent(kind), patience=0.5).run(attempts=1)
    assert not world.violations
    assert [set(end.survivors) for end in world.finished] == [without(LAST)]


@pytest.mark.parametrize("kind", [Adv, Shr, Msk], ids=lambda kind: kind.kind)
def test_a_silent_site_is_a_drop_out_with_the_timers_that_the_coordinator_asks_for(kind: type[Message]) -> None:
    world = World(slow(delay=1.0), silent(kind), patience=1.0).run(attempts=1)
    assert not world.violations
    assert [set(end.survivors) for end in world.finished] == [without(LAST)]


@dataclass
class Late(Interference):
    """Lets a repetition of an earlier message of this attempt arrive behind the next one."""

    kind: type[Message]
    held: bytes = b""

    def to_site(self, world: World, site: str, message: Message) -> list[Message | bytes]:
        del world
        if site != COHORT[0]:
            return [message]
        late, self.held = self.held, message.encode() if isinstance(message, self.kind) else b""
        return [message, late] if late else [message]


@pytest.mark.parametrize("kind", [Keys, Fwd], ids=lambda kind: kind.kind)
def test_a_repetition_that_was_overtaken_changes_nothing(kind: type[Message]) -> None:
    world = World(quiet(), Late(kind)).run(attempts=1)
    assert not world.violations
    assert all(site.aborted() is None for site in world.sites.values())


def test_a_lossy_network_costs_attempts_and_nothing_else() -> None:
    """One message in fifty lost and one in ten doubled: repetition inside the phase makes up for it."""
    ends = []
    for seed in range(20):
        world = World(slow(seed, drop=0.02, duplicate=0.1, delay=1.0)).run(attempts=1)
        assert not world.violations
        ends.append(world.attempts[0].end)
    assert sum(isinstance(end, Finished) for end in ends) >= 18
