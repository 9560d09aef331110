"""Replays schedules: ``python -m tests.privacy.secagg.simulation SEED [real|ideal] [COUNT]``."""

import sys
import time

from tests.privacy.secagg.simulation.run import many
from tests.privacy.secagg.simulation.schedule import SuiteName


def main(arguments: list[str]) -> int:
    seed = int(arguments[0])
    suite: SuiteName = "ideal" if arguments[1:2] == ["ideal"] else "real"
    count = int(arguments[2]) if len(arguments) > 2 else 1
    started = time.process_time()
    totals, failed = many(range(seed, seed + count), suite)
    for report in failed:
        sys.stdout.write(f"{report}\n")
    sys.stdout.write(f"{dict(totals)} in {time.process_time() - started:.1f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
