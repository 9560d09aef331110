"""The owner's end of a chain: the sessions to the first and to the last holder, opened and closed as one."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from clients.chain.driver import ChainDriver
from clients.chain.home import Links, Own
from clients.chain.released import Releaser
from clients.chain.request import CHAIN_BYTES, KIND, End, StageRequest
from clients.channel.dialler import Dialler
from clients.channel.session import Session
from privacy.errors import ConfigError
from strategies.chain_plan import ChainPlan, StageSpec, check_crossings


class Dial(Protocol):
    """Opens a session with another process's ``stage serve``."""

    def __call__(self, stage: StageSpec, request: StageRequest, purpose: str) -> Session:
        """Raises: FederationError: It is not there, refuses, or nobody knows its address."""


@dataclass(frozen=True)
class PeerDial:
    """Dials whom ``[channel.peers]`` of site.toml names: a stage's device, else its organisation.

    Attributes:
      peers: Asked anew for every session.
    """

    dialler: Dialler
    peers: Callable[[], Mapping[str, str]]

    def __call__(self, stage: StageSpec, request: StageRequest, purpose: str) -> Session:
        """Raises: FederationError: As `Dial`."""
        peers = self.peers()
        address = peers.get(stage.device) or peers.get(stage.organisation)
        if address is None:
            raise ConfigError(
                f"nobody knows where {stage.device} of {stage.organisation} listens",
                hint=f'Write {stage.device} = "host:port" under [channel.peers] in site.toml.',
            )
        return self.dialler.open(
            address,
            stage.organisation,
            kind=KIND,
            body=request.encode(),
            purpose=purpose,
            deadline=request.patience,
        )


@contextmanager
def open_chain(  # the plan and its terms, beside who pays
    plan: ChainPlan,
    dial: Dial,
    own: Own,
    releaser: Releaser | None = None,
    *,
    purpose: str,
    deadline: float = 30.0,
    **fields: Any,
) -> Iterator[ChainDriver]:
    """Lends a chain over the channel; when the block ends well, every holder has taken all its steps and kept them.

    Args:
      plan: As the charter, or a run's papers, allow it.
      dial: Finds the holders.
      own: The pieces at home.
      releaser: As `ChainDriver` takes it, paid for.
      purpose: As the charter calls it.
      deadline: Seconds without a message from a holder after which the chain is over.
      fields: Of the `StageRequest`, beside plan, place, end and chain.

    Raises: FederationError: A holder is not there or refuses, a crossing has no release: nothing of a record has left;
      or as `ChainDriver`.
    """
    check_crossings(plan)
    last, chain = len(plan.held) - 1, secrets.token_bytes(CHAIN_BYTES)
    request = StageRequest(plan=plan.encode(), place=0, end=End.BEFORE, chain=chain, **fields)
    near = dial(plan.held[0], request, purpose)
    try:
        home = replace(request, place=last, end=End.HOME)
        far = dial(plan.held[last], home, purpose) if last else near
    except BaseException:
        near.close("the other end of the chain is not there")
        raise
    try:
        driver = ChainDriver(plan, Links(near, far), own, releaser, deadline=deadline)
    except BaseException:
        near.close()
        far.close()
        raise
    with driver:
        yield driver
