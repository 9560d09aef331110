"""An agent as a process of its own: ``python -m tests.clients.agent_process FOLDER PORT``; it answers with an echo."""

import logging
import sys
from pathlib import Path

from clients.resident import Resident, stop_on_signals
from tests.clients.fleet_servers import Authority
from tests.clients.test_resident import echo


def main(folder: Path, port: int) -> None:
    """Runs until it is told to stop."""
    Resident(
        lambda: Authority(folder).fleet(port),
        echo,
        allowed=frozenset({"train.round"}),
        paused=(folder / "paused").exists,
        report=logging.getLogger("agent").warning,
        sent=lambda *_what: None,
    ).run(stop_on_signals())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
