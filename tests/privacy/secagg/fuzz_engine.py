"""Feeds changed messages to every decoder and to both machines, and notes what came of each."""

import json
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from tests.privacy.secagg import fuzz_decoders, fuzz_machines
from tests.privacy.secagg.fuzz_machines import Target
from tests.privacy.secagg.fuzz_mutate import mutate
from tests.privacy.secagg.simulation.schedule import source

MAX_BYTES = 2**16
"""Longest message that is tried; what a message *says* its length is has no limit."""
HEADER_BYTES = 2
"""An input is the number of its target, a number that chooses the sender, and the message."""


def all_targets() -> list[Target]:
    return [*fuzz_decoders.targets(), *fuzz_machines.targets()]


def allowed_bytes(size: int) -> int:
    """Most memory that a message of ``size`` bytes may make a decoder or a machine take, beyond what it had.

    An empty map is one byte on the wire and 64 in memory, and every message is encoded again: 256 for each byte, and
    what the keys, shares and vectors of five sites take.
    """
    return 2**20 + 256 * size


class FoundError(Exception):
    """A message that did what no message may do; its text is the entry to keep in ``tests/vectors/fuzz``."""


@dataclass
class Fuzzing:
    """One run.

    Attributes:
      targets: What gets messages.
      totals: Messages by outcome.
      reached: Targets that got one.
      most: Most bytes of memory that one message took.
    """

    targets: Sequence[Target]
    totals: Counter[str] = field(default_factory=Counter)
    reached: set[str] = field(default_factory=set)
    most: int = 0

    def __post_init__(self) -> None:
        """Watches memory from here on."""
        tracemalloc.start(1)
        for target in self.targets:
            target.check(target.seeds[0], 0)  # what is computed once and kept is not the fault of a message

    def close(self) -> None:
        """Stops watching memory, which is slow."""
        tracemalloc.stop()

    @property
    def count(self) -> int:
        return self.totals.total()

    def seeds(self) -> list[bytes]:
        """Returns one input for every target: the message that it waits for."""
        return [bytes([place, 0]) + target.seeds[0] for place, target in enumerate(self.targets)]

    def execute(self, data: bytes) -> None:
        """Feeds one input; raises FoundError, with all that is needed to do it again."""
        head, message = data[:HEADER_BYTES].ljust(HEADER_BYTES, b"\0"), data[HEADER_BYTES:]
        target = self.targets[head[0] % len(self.targets)]
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        try:
            outcome = target.check(message, head[1])
            _, peak = tracemalloc.get_traced_memory()
            if peak - before > allowed_bytes(len(message)):
                raise MemoryError(f"{len(message)} bytes took {peak - before}")  # noqa: TRY301 -- one way to be found
        except BaseException as error:
            entry = {"target": target.name, "choice": head[1], "hex": message.hex(), "why": repr(error)[:200]}
            raise FoundError(json.dumps(entry)) from error
        self.most = max(self.most, peak - before)
        self.totals[outcome] += 1
        self.reached.add(target.name)

    def mutated(
        self, data: bytes, seed: int, limit: int = MAX_BYTES, native: Callable[[bytes], bytes] | None = None
    ) -> bytes:
        """Returns another input.

        Args:
          data: An input.
          seed: Decides everything.
          limit: Most bytes.
          native: Changes bytes in its own way; asked some of the time.
        """
        random: Random = source(seed, data[:64])
        place, choice = [*data[:HEADER_BYTES], 0, 0][:HEADER_BYTES]
        if random.random() < 0.3:
            place = random.randrange(len(self.targets))
        if random.random() < 0.1:
            choice = random.randrange(256)
        place %= len(self.targets)
        target = self.targets[place]
        message = data[HEADER_BYTES:]
        if random.random() < 0.5:
            message = target.seeds[0] if random.random() < 0.7 else random.choice(target.seeds)
        if native and random.random() < 0.2:
            changed = native(message)
        else:
            changed = mutate(message, target.seeds, random, target.form)
        return (bytes([place, choice]) + changed)[:limit]

    def plain(self, runs: int, seed: int) -> None:
        """Runs without feedback: every message is a seed changed up to three times over."""
        seeds = self.seeds()
        for data in seeds[:runs]:
            self.execute(data)
        data = seeds[0]
        for number in range(self.count, runs):
            data = self.mutated(data if number % 3 else seeds[number % len(seeds)], seed + number)
            self.execute(data)

    def figures(self, started: float) -> str:
        """Returns one line.

        Args:
          started: CPU seconds of this process when the run began.
        """
        outcomes = ", ".join(f"{count:,} {name}" for name, count in sorted(self.totals.items()))
        return (
            f"{self.count:,} messages to {len(self.reached)} of {len(self.targets)} targets in"
            f" {time.process_time() - started:.0f} s: {outcomes}; at most {self.most / 2**10:.0f} KiB for one message;"
            " 0 crashes"
        )
