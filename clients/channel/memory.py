"""A session within one process: the same frames, counts and limits, and no line that could be cut."""

import threading

from clients.channel.limits import Limits
from clients.channel.session import Opening, Session
from clients.channel.stream import Line, StreamSession

_LIMITS = Limits()


def pair(a: str, b: str, opening: Opening, *, opened: bytes = b"", limits: Limits = _LIMITS) -> tuple[Session, Session]:
    """Returns the two ends of a session between ``a``, who dialled, and ``b``; for simulations and tests.

    Args:
      a: Site id of the first end, which the second sees as its peer.
      b: Likewise, the other way round.
      opening: What ``a`` would have asked for.
      opened: What ``b`` would have answered.
      limits: Of both.
    """
    ends = [StreamSession(peer=peer, opening=opening, opened=opened, limits=limits) for peer in (b, a)]
    lines = [Line(), Line()]
    for end, line in zip(ends, lines, strict=True):
        end.attach(line, 0, lambda: None)
    for place in (0, 1):
        carry = (lines[place], ends[1 - place], lines[1 - place])
        threading.Thread(target=_carry, args=carry, daemon=True, name=f"memory line of {(a, b)[place]}").start()
    return ends[0], ends[1]


def _carry(line: Line, to: StreamSession, over: Line) -> None:
    for frame in line:
        to.arrived(over, frame)
