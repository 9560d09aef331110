"""An invitation to a run: all that the coordinator decides, signed, and nothing that a site takes from it unseen.

A site resolves the job itself, from the study in its own folder and the numbers here; both must come to the same
digest. No model, code or path is in an invitation.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any

from privacy.audit import canonical
from privacy.audit.envelope import decode_base64, pae
from privacy.charter.document import SETTINGS, Floors
from privacy.charter.rules import Proposal, Terms
from privacy.dp.plan import PrivacyPlan, RecordPlan, SitePlan, Unit
from privacy.errors import ConfigError, RemoteProtocolError, VerificationError
from privacy.keys import signing
from privacy.secagg.context import thresholds
from strategies.job import Job, exact
from strategies.refusals import OWN_SCALING, check_plan, check_privacy
from strategies.registry import ALGORITHMS, build
from strategies.study import Study
from strategies.task import SiteId, Training

SCHEMA = "collegium/invitation/v1"
MAX_BYTES = 65_536
_KIND = "application/vnd.collegium.invitation+json"

_WHOLE = ("rounds", "retries", "local_steps", "batch")
_CLIPS = ("clip", "update_clip")
_MOST_DIGITS = 30  # before or after the point
TRAINING_PARAMETERS = ("rounds", "retries", "local_steps", "batch", "learning_rate")
"""Settings of the training that a charter gives ranges for, beside those of the algorithm itself."""

_TEXTS = ("federation", "run", "charter", "application", "study", "job", "strategy", "unit", "purpose", "asset")


@dataclass(frozen=True)
class Invitation:
    """What a site is invited to; all public.

    Attributes:
      run: Names the run, also after the server was started again.
      charter: Digest of the charter it is proposed under, hex.
      application: Digest of the application that the coordinator runs, hex.
      study: Digest of the study, hex.
      job: Digest that the site's own resolved job must have, hex.
      parameters: Every number of the training and of the algorithm, defaults included.
      sites: Who is invited, in the study's order.
    """

    federation: str
    run: str
    charter: str
    application: str
    study: str
    job: str
    strategy: str
    parameters: Mapping[str, Decimal]
    sites: tuple[SiteId, ...]
    seed: int
    privacy: tuple[str, ...]
    unit: str
    epsilon: Decimal
    delta: Decimal
    secagg: bool
    purpose: str
    asset: str

    def signed(self, key: signing.SigningKey) -> bytes:
        """Returns the bytes that travel, signed by the coordinator's identity key."""
        body = {each.name: getattr(self, each.name) for each in fields(self)}
        body |= {
            "schema": SCHEMA,
            "parameters": {name: str(value) for name, value in self.parameters.items()},
            "sites": list(self.sites),
            "privacy": list(self.privacy),
            "epsilon": str(self.epsilon),
            "delta": str(self.delta),
        }
        signature = base64.b64encode(key.sign(pae(_KIND, canonical.dumps(body)))).decode()
        return canonical.dumps({"invitation": body, "signature": signature})

    def proposal(self, job: Job, plans: "tuple[PrivacyPlan, ...]", floors: Floors) -> Proposal:
        """Returns what the charter's rules are asked about.

        Args:
          job: As the site resolved it.
          plans: Noise that the site itself adds, priced for the whole run.
          floors: The charter's, which a coordinator's thresholds are never below.
        """
        told = {name: value for name, value in self.parameters.items() if name not in _CLIPS}
        return Proposal(
            charter=self.charter,
            application=self.application,
            study=self.study,
            strategy=self.strategy,
            parameters=told,
            cohort=tuple(sorted(self.sites)),
            thresholds=floors.raised(thresholds(len(self.sites))) if job.secagg else None,
            privacy=tuple(_terms(plan) for plan in (*plans, *_central(job))),
            purpose=self.purpose,
            asset=self.asset,
        )


def invite(  # the names of a run, beside the job
    job: Job, *, federation: str, run: str, charter: str, application: str, study: str, purpose: str, asset: str
) -> Invitation:
    """Returns the invitation to a job that the coordinator resolved."""
    training = job.task.training
    numbers = {name: getattr(training, name) for name in (*TRAINING_PARAMETERS, *_CLIPS)} | vars(job.algorithm)
    return Invitation(
        federation=federation,
        run=run,
        charter=charter,
        application=application,
        study=study,
        job=job.digest,
        strategy=job.strategy,
        parameters={name: exact(value) for name, value in numbers.items()},
        sites=job.sites,
        seed=job.seed,
        privacy=job.privacy,
        unit=str(job.unit),
        epsilon=job.epsilon,
        delta=job.delta,
        secagg=job.secagg,
        purpose=purpose,
        asset=asset,
    )


def open_invitation(data: bytes, coordinator: bytes) -> Invitation:
    """Reads an invitation from a stranger and checks who signed it.

    Args:
      data: Untrusted.
      coordinator: Its identity key, as the charter has it.

    Raises:
      RemoteProtocolError: It is none.
      VerificationError: Somebody else signed it.
    """
    try:
        return _read(data, coordinator)
    except (ConfigError, InvalidOperation, TypeError, KeyError, ValueError, AttributeError) as error:
        why = str(error) if isinstance(error, ConfigError) else "a field is not what it should be"
        raise RemoteProtocolError(f"the invitation cannot be read: {why}", phase="hello") from None


def resolve_invited(study: Study, invitation: Invitation) -> Job:
    """Resolves the job that an invitation means, from the site's own study.

    Raises:
      ConfigError: Settings that no job can have.
      VerificationError: Another study, or the job comes out another one than the coordinator's.
    """
    if invitation.study != study.digest:
        raise VerificationError(f"the invitation is to another study than the {study.name} that this site has")
    known = set(study.sites)
    if not set(invitation.sites) <= known or list(invitation.sites) != [
        s for s in study.sites if s in invitation.sites
    ]:
        raise VerificationError("the invitation names sites that the study does not list, or in another order")
    job = resolve_job(
        study,
        invitation.strategy,
        invitation.parameters,
        sites=invitation.sites,
        seed=invitation.seed,
        privacy=invitation.privacy,
        unit=Unit(invitation.unit),
        epsilon=invitation.epsilon,
        delta=invitation.delta,
    )
    if job.digest != invitation.job or not invitation.secagg:
        raise VerificationError("this site resolves the invitation to another job than the coordinator's")
    return job


def resolve_job(
    study: Study, strategy: str, parameters: Mapping[str, Decimal], *, sites: tuple[SiteId, ...], **rest: Any
) -> Job:
    """Resolves a job under secure aggregation; unnamed parameters are the study's.

    Args:
      study: What is learnt.
      strategy: Name of the algorithm.
      parameters: Numbers of the training and of the algorithm.
      sites: Who takes part, in the study's order.
      rest: ``seed``, ``privacy``, ``unit``, ``epsilon``, ``delta`` of the job.

    Raises: ConfigError: Unknown strategy or setting, a value out of range, or a combination that is refused.
    """
    training = _training(study.task.training_for(strategy), parameters)
    own = {name: float(value) for name, value in parameters.items() if name not in {*TRAINING_PARAMETERS, *_CLIPS}}
    algorithm = build(strategy, {**study.task.settings_for(strategy), **own})
    job = Job(
        name=study.name,
        task=replace(study.task, training=training),
        strategy=strategy,
        algorithm=algorithm,
        sites=sites,
        secagg=True,
        division=study.division,
        agents={site: agent for site, agent in study.agents.items() if site in sites},
        chain=study.chain,
        **rest,
    )
    check_privacy(job, refused=OWN_SCALING if study.task.scaling == "own" else "")
    check_plan(job)
    return job


def _training(training: Training, parameters: Mapping[str, Decimal]) -> Training:
    given = {name: value for name, value in parameters.items() if name in {*TRAINING_PARAMETERS, *_CLIPS}}
    for name, value in given.items():
        whole = name in _WHOLE
        least = Decimal(1) if name in {"rounds", "local_steps"} else Decimal(0)
        if not value.is_finite() or (whole and (value != int(value) or value < least)) or (not whole and value <= 0):
            raise ConfigError(f"{name} = {value} is no usable number")
    values: dict[str, Any] = {n: int(v) if n in _WHOLE else float(v) for n, v in given.items()}
    return replace(training, **values)


def _central(job: Job) -> tuple[PrivacyPlan, ...]:
    return (job.sum_plan,) if isinstance(job.sum_plan, SitePlan) else ()


def _terms(plan: PrivacyPlan) -> Terms:
    setting = "record" if isinstance(plan, RecordPlan) else "site" if isinstance(plan, SitePlan) else "distributed"
    return Terms(setting, plan.target, plan.delta, plan.clip, plan.noise_multiplier)


def _read(data: bytes, coordinator: bytes) -> Invitation:
    if len(data) > MAX_BYTES:
        raise ConfigError("it is too large")
    outer = canonical.loads(data, what="the invitation")
    if not isinstance(outer, dict) or set(outer) != {"invitation", "signature"}:
        raise ConfigError("it has other fields than an invitation and a signature")
    body = outer["invitation"]
    names = {each.name for each in fields(Invitation)}
    if not isinstance(body, dict) or set(body) != {"schema", *names} or body["schema"] != SCHEMA:
        raise ConfigError(f"it is not in the format {SCHEMA}")
    signing.verify(coordinator, decode_base64(outer["signature"]), pae(_KIND, canonical.dumps(body)))
    if any(type(body[name]) is not str for name in _TEXTS) or body["strategy"] not in ALGORITHMS:
        raise ConfigError("it names no strategy that there is")
    if body["unit"] not in set(Unit) or not set(body["privacy"]) <= set(SETTINGS):
        raise ConfigError("it names no privacy that there is")
    if type(body["seed"]) is not int or not 0 <= body["seed"] < 2**32 or type(body["secagg"]) is not bool:
        raise ConfigError("its seed is out of range")
    for name in ("sites", "privacy"):
        if not isinstance(body[name], list) or len(set(body[name])) != len(body[name]):
            raise ConfigError(f"its {name} are no list of different names")
    if not body["sites"]:
        raise ConfigError("it invites nobody")
    parameters = {name: _decimal(text) for name, text in body["parameters"].items()}
    return Invitation(
        **{name: body[name] for name in (*_TEXTS, "seed", "secagg")},
        parameters=MappingProxyType(parameters),
        sites=tuple(SiteId(str(site)) for site in body["sites"]),
        privacy=tuple(str(name) for name in body["privacy"]),
        epsilon=_decimal(body["epsilon"]),
        delta=_decimal(body["delta"]),
    )


def in_reach(value: Decimal) -> bool:
    """Tells whether an invitation can carry ``value``: what is computed from it takes no time that it could choose."""
    return value.is_finite() and abs(value.adjusted()) <= _MOST_DIGITS


def _decimal(text: str) -> Decimal:
    value = Decimal(text)
    if not in_reach(value) or str(value) != text:
        raise ConfigError(f"{text[:40]!r} is not one finite decimal")
    return value
