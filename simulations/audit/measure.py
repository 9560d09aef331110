"""All measurements of an audit, one after the other, as the claims that an auditor signs."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from clients.clipping import INTEGER_PARAMETERS
from clients.one_run import audit_path
from privacy.attacks.canaries import commitment
from privacy.audit import attack_claims
from privacy.audit.attack_claims import Evidence, PathAudit
from privacy.audit.plans import plan_of
from privacy.dp.noise import Entropy
from privacy.dp.plan import RecordPlan
from privacy.errors import ConfigError, UnsupportedEventError
from simulations.audit.black_box import black_box
from simulations.audit.inversion import inversion
from simulations.audit.membership import membership
from simulations.audit.one_shot import one_shot, why_not
from simulations.audit.subject import Simulated, Subject

Say = Callable[[str], None]
"""Takes one plain line for people."""
_SEED_BYTES = 32


@dataclass(frozen=True)
class Settings:
    """How much is measured; public.

    Attributes:
      canaries: Of the one-run audit.
      planted: Mislabelled records of the black-box audit, at most.
      entropy: Randomness; seeds are drawn from it and committed to before anything is measured.
    """

    canaries: int
    planted: int
    entropy: Entropy = secrets.token_bytes


@dataclass(frozen=True)
class Measured:
    """What an audit found.

    Attributes:
      claims: To be signed, in order.
      scores: Of the canaries, the bytes of ``canary_file.CANARIES_FILE``.
      left_out: What was not measured and why, in plain lines.
    """

    claims: tuple[dict[str, Any], ...]
    scores: bytes = field(repr=False)
    left_out: tuple[str, ...]


def measure(subject: Subject, settings: Settings, say: Say) -> Measured:
    """Measures all that can be measured of a run.

    Args:
      subject: What is audited; it is not changed, and no budget of it is touched.
      settings: How much.
      say: Told before each measurement, seeds' commitments first.

    Raises: FederationError: As a run; nothing was measured then.
    """
    left_out: list[str] = []
    evidence: list[Evidence] = []
    claims: list[dict[str, Any]] = []
    if audits := _one_run(subject, settings, say, left_out):
        evidence.append(audits)
    if subject.simulated is None:
        left_out.append("attacks on the model: records are at the sites, where nobody else can attack with them")
    else:
        try:
            evidence.append(_black_box(subject, subject.simulated, settings, say))
        except ConfigError as error:  # too few records to plant canaries among
            left_out.append(f"no black box: {error}")
        claims += _on_model(subject, subject.simulated, settings, say, left_out)
    return Measured(
        (*(one.claim for one in evidence), *claims), b"".join(one.lines for one in evidence), tuple(left_out)
    )


def _seed(what: str, settings: Settings, say: Say) -> bytes:
    seed = settings.entropy(_SEED_BYTES)
    say(f"{what}: committed to the coins of the canaries: {commitment(seed)}")
    return seed


def _one_run(subject: Subject, settings: Settings, say: Say, left_out: list[str]) -> Evidence | None:
    if not subject.report.epsilons:
        left_out.append("no one-run audit: the run added no noise, so there is no release path")
        return None
    seed = _seed("one-run audit", settings, say)
    audits = list(_paths(subject, seed, settings, left_out))
    return attack_claims.one_run_claim(audits, seed=seed) if audits else None


def _paths(subject: Subject, seed: bytes, settings: Settings, left_out: list[str]) -> Iterator[PathAudit]:
    """Audits the path of each plan; large models have one of their own."""
    parameters = next(c["parameters"] for c in subject.report.predicate["claims"] if c["id"] == "model.digest")
    for claim in subject.report.epsilons:
        try:
            plan = plan_of(claim, parameters)
            large = isinstance(plan, RecordPlan) and parameters > INTEGER_PARAMETERS
            yield audit_path(plan, seed=seed, entropy=settings.entropy, canaries=settings.canaries, floating=large)
        except (ConfigError, UnsupportedEventError) as error:  # a grid too coarse for so many canaries
            left_out.append(f"no one-run audit of {claim['placement']} noise: {error}")


def _black_box(subject: Subject, simulated: Simulated, settings: Settings, say: Say) -> Evidence:
    return black_box(
        simulated.job,
        simulated.data,
        epsilons=subject.report.epsilons,
        seed=_seed("black box", settings, say),
        canaries=settings.planted,
        entropy=settings.entropy,
    )


def _on_model(
    subject: Subject, simulated: Simulated, settings: Settings, say: Say, left_out: list[str]
) -> Iterator[dict[str, Any]]:
    job, data, epsilons = simulated.job, simulated.data, subject.report.epsilons
    say("membership: attacking the delivered model with the records that trained it")
    yield membership(job, data, simulated.delivered, epsilons=epsilons)
    if reason := why_not(job):
        left_out.append(reason)
    else:
        say("canary sites: training copies with made-up sites")
        yield one_shot(job, data, epsilons=epsilons, entropy=settings.entropy)
    say("inversion: reconstructing a made-up record from its update")
    try:
        inverted = inversion(job, simulated.sizes, seed=int.from_bytes(settings.entropy(4), "big"))
    except ConfigError as error:
        left_out.append(f"no inversion: {error}")
        return
    if inverted is None:
        left_out.append("no inversion: the server of such a run sees every update as it is")
        return
    yield inverted.claim
