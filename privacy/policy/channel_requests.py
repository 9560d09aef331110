"""What agents ask of each other over the channel, as facts, and as requests to a site's policy.

A *holder* is asked to work at a stage, an *owner* decides whether values of its records may leave, an *agent* is asked
for predictions. Numbers are rounded as in `privacy.policy.requests`: no fact looks safer than it is.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from privacy.policy.engine import Request, Value
from privacy.policy.requests import MOST, local_time, milli_down, milli_up

_ENDLESS = Decimal("Infinity")


@dataclass(frozen=True)
class HoldFacts:
    """Somebody asks this site to hold a stage. Fields come from the opening, whose peer is authenticated; all public.

    Attributes:
      asker: Site id of the peer that opened the session.
      owner: Site id of the organisation whose records pass through the chain, from the plan.
      plan: Digest of the plan, hex.
      purpose: What for.
      train: Whether the stages are trained.
      stages: How many the chain has.
      micro_batch: Records in one.
      study: Digest of the study in whose run the plan is used, hex, from the coordinator's signed invitation; empty:
        the charter lists the plan itself.
    """

    asker: str
    owner: str
    plan: str
    purpose: str
    train: bool
    stages: int
    micro_batch: int
    study: str = ""


@dataclass(frozen=True)
class ReleaseFacts:
    """Values of this site's records are about to go to another site. All public; without ``clip`` they go as they are.

    Attributes:
      receiver: Site id of who gets them.
      asset: Whose records.
      plan: Digest of the plan or of the batch of queries they leave under, hex.
      purpose: What for.
      what: Names of crossings: ``inputs``, ``activations``, ``gradients``, ``labels``.
      reason: Why they leave as they are; empty: they are noised.
      clip: Largest norm of one record's values.
      noise: Standard deviation over ``clip``.
      most: How often values of one record may leave.
      epsilon_after: What the asset will have cost in all once they have left, by the site's own ledger.
      study: As in `HoldFacts`.
    """

    receiver: str
    asset: str
    plan: str
    purpose: str
    what: tuple[str, ...]
    reason: str = ""
    clip: Decimal = _ENDLESS
    noise: Decimal = Decimal(0)
    most: int = MOST
    epsilon_after: Decimal = _ENDLESS
    study: str = ""

    @property
    def unsafe(self) -> bool:
        """Whether they leave as they are."""
        return not (self.clip.is_finite() and self.noise.is_finite() and self.noise > 0)


@dataclass(frozen=True)
class AskFacts:
    """Somebody asks this site for predictions; all public.

    Attributes:
      asker: Site id of the authenticated peer, or of this site itself.
      mode: ``local``, ``ensemble`` or ``chain``.
      purpose: What for.
      queries: Rows of this batch.
      asked_today: Rows that the asker asked for today, these included, by `privacy.store.answers`.
      asked_ever: Likewise, ever.
      agents: Site ids of those whose scores are added up, sorted; of one site in the other modes.
      colluders: Of them, how many may share what they know with the asker, itself included if it is one.
      noise: Standard deviation of the noise in the sum over its sensitivity to one agent's scores; 0: none.
      epsilon_after: What this site's answers will have cost in all; without noise there is no limit.
    """

    asker: str
    mode: str
    purpose: str
    queries: int
    asked_today: int
    asked_ever: int
    agents: tuple[str, ...]
    colluders: int
    noise: Decimal = Decimal(0)
    epsilon_after: Decimal = _ENDLESS


def hold_request(facts: HoldFacts, *, purposes: tuple[str, ...], moment: datetime) -> Request:
    """Returns what a holder's policy is asked; ``purposes`` are those of the charter."""
    context: dict[str, Value] = {
        **{name: getattr(facts, name) for name in ("purpose", "train", "stages", "micro_batch")},
        **local_time(moment),
    }
    attributes: dict[str, Value] = {"owner": facts.owner, "purposes": purposes}
    return Request(("Agent", facts.asker), "hold", ("Plan", facts.plan), context, attributes)


def release_request(
    facts: ReleaseFacts, *, sensitivity: str, purposes: tuple[str, ...], epsilon_cap: Decimal, moment: datetime
) -> Request:
    """Returns what an owner's policy is asked; the keywords are the site's own words about its asset.

    Raises: PrivacyError: A number means nothing, such as a negative epsilon.
    """
    context: dict[str, Value] = {
        "purpose": facts.purpose,
        "what": facts.what,
        "unsafe": facts.unsafe,
        "clip_milli": milli_up(facts.clip),
        "noise_milli": milli_down(facts.noise),
        "most": min(facts.most, MOST),
        "epsilon_after_milli": milli_up(facts.epsilon_after),
        **local_time(moment),
    }
    attributes: dict[str, Value] = {
        "sensitivity": sensitivity,
        "purposes": purposes,
        "epsilon_cap_milli": milli_down(epsilon_cap),
    }
    return Request(("Agent", facts.receiver), "release", ("Asset", facts.asset), context, attributes)


def ask_request(
    facts: AskFacts, *, site: str, purposes: tuple[str, ...], epsilon_cap: Decimal, moment: datetime
) -> Request:
    """Returns what an agent's policy is asked; purposes and cap are those of the charter's ``inference``.

    Raises: PrivacyError: A number means nothing, such as a negative epsilon.
    """
    context: dict[str, Value] = {
        **{name: getattr(facts, name) for name in ("purpose", "mode", "colluders")},
        **{name: min(getattr(facts, name), MOST) for name in ("queries", "asked_today", "asked_ever")},
        "own": facts.asker == site,
        "agents": len(facts.agents),
        "noise_milli": milli_down(facts.noise),
        "epsilon_after_milli": milli_up(facts.epsilon_after),
        **local_time(moment),
    }
    attributes: dict[str, Value] = {"purposes": purposes, "epsilon_cap_milli": milli_down(epsilon_cap)}
    return Request(("Agent", facts.asker), "ask", ("Service", site), context, attributes)
