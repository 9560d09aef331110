"""When a site's process dies: at which message, and before or after its answer is paid for."""

import os
import signal
from dataclasses import dataclass
from typing import Any

from clients.real_site import RealSite
from strategies.messages import CLOSE, HELLO, MASKED, SECAGG

PHASES = [(HELLO, 1), (MASKED, 2), (SECAGG, 4), (SECAGG, 5), (SECAGG, 6), (CLOSE, 1)]
"""Message type, and which of its kind: two rounds of three messages of secure aggregation after the first."""
RECOVERY = 90.0  # seconds


@dataclass(frozen=True)
class DieAt:
    """The agent's process is killed at a message: before it is looked at, or when its answer is paid for and unsent."""

    kind: str
    which: int
    answered: bool

    def __call__(self) -> None:
        answer, seen = RealSite.answer, 0

        def dying(site: RealSite, message: Any, context: Any) -> Any:
            nonlocal seen
            seen += message.metadata.message_type == self.kind
            here = message.metadata.message_type == self.kind and seen == self.which
            if here and not self.answered:
                os.kill(os.getpid(), signal.SIGKILL)
            reply = answer(site, message, context)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return reply

        setattr(RealSite, "answer", dying)  # noqa: B010 -- mypy takes no assignment to a method
