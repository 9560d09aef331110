"""A chain whose holder is a thread of this process: for simulations, and for rehearsals on made-up records."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from clients.chain.driver import ChainDriver
from clients.chain.home import Links, Own
from clients.chain.loop import StageLoop
from clients.chain.released import Releaser
from clients.chain.request import KIND
from clients.chain.stage import Stage
from clients.channel.memory import pair
from clients.channel.session import Opening
from privacy.errors import FederationError
from strategies.chain_plan import ChainPlan

_SESSION_BYTES = 16


@contextmanager
def in_process(plan: ChainPlan, own: Own, held: Stage, releaser: Releaser) -> Iterator[ChainDriver]:
    """Lends a chain with one held piece, which has taken all its steps once the block ends well.

    Args:
      plan: With one held piece.
      own: The pieces at home.
      held: The piece between; changed in place.
      releaser: Lets values leave home, as often as was paid for.

    Raises: FederationError: As `ChainDriver`.
    """
    (holder,) = plan.held
    near, far = pair(plan.owner, holder.organisation, Opening(KIND, secrets.token_bytes(_SESSION_BYTES)))
    loop = StageLoop(held, labels=plan.labels_leave)

    def hold() -> None:
        with suppress(FederationError):  # home is told by the session
            loop.run(far, far)

    thread = threading.Thread(target=hold, name=f"stage at {holder.device}", daemon=True)
    thread.start()
    try:
        with ChainDriver(plan, Links(near, near), own, releaser) as driver:
            yield driver
    finally:
        near.close()
        thread.join()
