"""A plan that can be run: which piece of a model is at whose device, how it is trained, and what may cross.

A chain starts at *home*, the first device of `collegium plan`, whose organisation *owns* the records. Home may hold the
first piece (the front) and the last (the tail: a U, labels stay home); the pieces between are *held* by others. Within
the owner's organisation and back to it values pass freely. To any other organisation they pass under a release, and
noise can only be added where they leave home, before anything is sent.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import rfc8785

from privacy.audit import schemas
from privacy.errors import ConfigError, PrivacyError
from privacy.store.budgets import check_names
from strategies.cuts import Piece
from strategies.release import (
    AnyRelease,
    Crossing,
    Release,
    UnsafeRelease,
    find_release,
    read_release,
    release_body,
)
from strategies.task_file import StrictTable

Optimizer = Literal["sgd", "momentum", "adam"]

FORMAT = "collegium/chain/v1"
MAX_BYTES = 2**24
_SCHEMA = "plan-v1"
_LEAST_CLIP, _LEAST_NOISE = 1e-12, 1e-9  # their inverses are the most: noise is a number that floats can hold
_MOST_TIMES = 10**9
_AGAIN = "Make the plan with `collegium plan ... --json` and leave it as it is."


@dataclass(frozen=True)
class StageSpec:
    """A piece at a device; all public.

    Attributes:
      start: The node whose value comes in; empty for the model's inputs.
      end: The node whose value goes out; empty for the model's output.
      keys: Names in the model's state dict that the piece holds, sorted.
      digest: Of the piece, as in `strategies.cuts.Piece`.
    """

    device: str
    organisation: str
    start: str
    end: str
    keys: tuple[str, ...]
    digest: str

    @property
    def piece(self) -> Piece:
        """What `strategies.cuts.build` takes."""
        return Piece(self.start, self.end, self.keys, self.digest)


@dataclass(frozen=True)
class ChainPlan:
    """Stages in the order in which a micro-batch passes them, and the terms; all public.

    Attributes:
      model: A scenario's name or ``module:factory``; each party builds it from its own installed code.
      home: The device where the records and the labels are.
      owner: Its organisation.
      optimizer: Of every stage; without meaning unless ``train``.
      micro_batch: Records in one.
      in_flight: Most micro-batches under way at once.
      releases: What the owner lets others have.

    Raises: ConfigError: Stages that make no chain, or a release of somebody else's.
    """

    model: str
    home: str
    owner: str
    stages: tuple[StageSpec, ...]
    train: bool
    optimizer: Optimizer
    micro_batch: int
    in_flight: int
    releases: tuple[AnyRelease, ...] = ()

    def __post_init__(self) -> None:
        check_names(self.home, self.owner, *(name for each in self.stages for name in (each.device, each.organisation)))
        texts = [self.model, *(text for each in self.stages for text in (each.start, each.end, *each.keys))]
        if not all(text.isprintable() for text in texts):
            raise ConfigError("a chain plan has a name that cannot be shown on a line")
        _check_row(self)
        _check_devices(self)
        if self.micro_batch < 1 or self.in_flight < 1:
            raise ConfigError("a chain has at least one record in a micro-batch, and one micro-batch under way")
        for release in self.releases:
            _check_release(release, self.owner)

    @property
    def front(self) -> StageSpec | None:
        """The piece at home that takes the inputs, if there is one."""
        return self.stages[0] if self.stages[0].device == self.home else None

    @property
    def tail(self) -> StageSpec | None:
        """The piece at home that gives the output, if there is one."""
        return self.stages[-1] if self.stages[-1].device == self.home else None

    @property
    def held(self) -> tuple[StageSpec, ...]:
        """The pieces between, at others' processes; at least one."""
        return self.stages[self.front is not None : len(self.stages) - (self.tail is not None)]

    @property
    def labels_leave(self) -> bool:
        """Whether the last held piece is trained with labels that are sent to it."""
        return self.train and self.tail is None

    def place(self, device: str) -> int:
        """Returns the number of a device's piece among those held, from 0. Raises: ConfigError: It holds none."""
        for number, stage in enumerate(self.held):
            if stage.device == device:
                return number
        raise ConfigError(f"the plan has no piece for {device}")

    def release(self, what: Crossing, to: str) -> AnyRelease | None:
        """Returns the release under which what comes from the owner's records may reach an organisation."""
        return find_release(self.releases, what, owner=self.owner, to=to)

    def body(self) -> dict[str, Any]:
        """Returns the ``chain`` of `collegium plan`'s JSON."""
        return {
            "format": FORMAT,
            "model": self.model,
            "home": self.home,
            "owner": self.owner,
            "stages": [{**vars(stage), "keys": list(stage.keys)} for stage in self.stages],
            "train": self.train,
            "optimizer": self.optimizer,
            "micro_batch": self.micro_batch,
            "in_flight": self.in_flight,
            "releases": [release_body(release) for release in self.releases],
        }

    def encode(self) -> bytes:
        """Returns the one canonical form (RFC 8785): what travels and what is digested."""
        return rfc8785.dumps(self.body())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `encode`, in hexadecimal: what a charter allows."""
        return hashlib.sha256(self.encode()).hexdigest()


def decode_chain_plan(data: bytes) -> ChainPlan:
    """Reads what `ChainPlan.encode` wrote; untrusted.

    Raises: ConfigError: Anything but the one canonical form of a chain.
    """
    plan = _plan(_json(data))
    if plan.encode() != data:
        raise ConfigError("the chain plan is not in canonical form (RFC 8785): it was edited or re-saved")
    return plan


def parse_chain_plan(data: bytes) -> ChainPlan:
    """Reads the chain out of the ``plan.json`` of `collegium plan`; untrusted.

    Raises: ConfigError: It is no plan, was made before plans could be run, or found no chain over several devices.
    """
    found = _json(data)
    schemas.check(_SCHEMA, found)
    if "chain" not in found:
        raise ConfigError("the plan was made by a version whose plans do not run", hint=_AGAIN)
    if found["chain"] is None:
        reason = found["refused"] or "one device does everything"
        raise ConfigError(f"the plan has no chain to run: {reason}")
    return _plan(found["chain"])


def crossings(plan: ChainPlan) -> Iterator[tuple[Crossing, str, str]]:
    """Yields what passes from device to device, with the giver and the taker, in the order of a step.

    The answer, and in training the loss, come home to whom they belong and are left out, as is the front's gradient.
    """
    devices = [plan.home, *(stage.device for stage in plan.held)]
    for giver, taker in itertools.pairwise(devices):
        inputs = plan.front is None and giver == plan.home
        yield Crossing.INPUTS if inputs else Crossing.ACTIVATIONS, giver, taker
    if not plan.train:
        return
    yield Crossing.LABELS if plan.labels_leave else Crossing.GRADIENTS, plan.home, devices[-1]
    for giver, taker in itertools.pairwise(reversed(devices[1:])):
        yield Crossing.GRADIENTS, giver, taker


def leaving(plan: ChainPlan) -> dict[Crossing, AnyRelease | None]:
    """Returns what leaves home, and under which release; ``None``: it stays within the owner's organisation.

    Raises: PrivacyError: As `check_crossings`.
    """
    check_crossings(plan)
    organisations = _organisations(plan)
    from_home = [(what, organisations[taker]) for what, giver, taker in crossings(plan) if giver == plan.home]
    return {what: None if to == plan.owner else plan.release(what, to) for what, to in from_home}


def check_crossings(plan: ChainPlan) -> None:
    """Refuses a chain in which something reaches another organisation that its owner did not release to it.

    What a holder computes from noised values and passes on is as noised as they were (post-processing). So a release
    with noise to a later organisation asks for no less at home; it cannot be met where values leave the owner's
    organisation from another device than home.

    Raises: PrivacyError: With the first such crossing in plain words.
    """
    organisations = _organisations(plan)
    noised: AnyRelease | None = None  # the noise that what travels now got when it left home
    for what, giver, taker in crossings(plan):
        if giver == plan.home:
            noised = None
        to = organisations[taker]
        if to in {organisations[giver], plan.owner}:
            continue
        release = plan.release(what, to)
        if release is None:
            raise PrivacyError(
                f"{what} of {plan.owner} would reach {to}, and the plan has no release for that",
                hint="Cut so that they stay within the organisation, or add [[releases]]: docs/how-to-plan.md.",
            )
        if giver == plan.home:
            noised = release
        elif isinstance(release, Release) and not _as_noised(noised, release):
            raise PrivacyError(
                f"{what} would reach {to} from {giver} with less noise than their release to {to} asks for",
                hint=f"Noise is added only where values leave {plan.home}: give that crossing as much, or fewer times.",
            )


def _as_noised(noised: AnyRelease | None, wanted: Release) -> bool:
    return isinstance(noised, Release) and noised.noise >= wanted.noise and noised.most <= wanted.most


def _organisations(plan: ChainPlan) -> dict[str, str]:
    return {plan.home: plan.owner, **{stage.device: stage.organisation for stage in plan.stages}}


def _check_row(plan: ChainPlan) -> None:
    """Checks that the pieces are the model, one after another, with no parameter on two sides."""
    cuts = [stage.start for stage in plan.stages[1:]]
    if not plan.stages or not all(cuts):
        raise ConfigError("a chain is a row of pieces from the inputs to the output")
    for stage, start, end in zip(plan.stages, ["", *cuts], [*cuts, ""], strict=True):
        if (stage.start, stage.end) != (start, end):
            raise ConfigError(f"the piece at {stage.device} does not begin where the one before it ends")
    keys = [key for stage in plan.stages for key in stage.keys]
    if len(keys) != len(set(keys)):
        raise ConfigError("two pieces of the chain hold one parameter")


def _check_release(release: AnyRelease, owner: str) -> None:
    if release.owner != owner:
        raise ConfigError(f"a chain whose records are {owner}'s has a release of somebody else's")
    check_names(release.to)
    if isinstance(release, UnsafeRelease):
        if not release.reason.isprintable():
            raise ConfigError("a release's reason cannot be shown on a line")
    elif not all(
        low <= value <= 1 / low for low, value in ((_LEAST_CLIP, release.clip), (_LEAST_NOISE, release.noise))
    ):
        raise ConfigError(f"a release to {release.to} has a clip or noise that is out of range")
    elif release.most > _MOST_TIMES:
        raise ConfigError(f"a release to {release.to} may be asked for at most {_MOST_TIMES} times a record")


def _check_devices(plan: ChainPlan) -> None:
    names = [stage.device for stage in plan.held]
    if not names or plan.home in names or len(names) != len(set(names)):
        raise ConfigError("a chain passes every device once, and home only at its ends")
    for stage in (plan.front, plan.tail):
        if stage is not None and stage.organisation != plan.owner:
            raise ConfigError(f"{plan.home} is {plan.owner}'s and {stage.organisation}'s at once")


def _json(data: bytes) -> Any:
    if len(data) > MAX_BYTES:
        raise ConfigError(f"the plan is larger than {MAX_BYTES // 2**20} MB", hint=_AGAIN)
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ConfigError("the plan is not JSON", hint=_AGAIN) from None


def _refuse(text: str) -> None:
    raise ValueError(text)


def _plan(body: Mapping[str, Any]) -> ChainPlan:
    schemas.check(_SCHEMA, body, definition="chain")
    releases = [read_release(StrictTable(each, f"releases[{i}]")) for i, each in enumerate(body["releases"])]
    return ChainPlan(
        model=body["model"],
        home=body["home"],
        owner=body["owner"],
        stages=_stages(body["stages"]),
        train=body["train"],
        optimizer=cast("Optimizer", body["optimizer"]),
        micro_batch=body["micro_batch"],
        in_flight=body["in_flight"],
        releases=tuple(releases),
    )


def _stages(bodies: Sequence[Mapping[str, Any]]) -> tuple[StageSpec, ...]:
    return tuple(StageSpec(**{**body, "keys": tuple(body["keys"])}) for body in bodies)
