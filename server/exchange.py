"""Questions to sites over a Flower ``Grid``, with an own deadline on every wait.

Flower's time-to-live does not cancel a message: a late site still runs it and may still answer. Late answers are
therefore recognised, counted and thrown away, and a site that keeps the others waiting is waited for no longer, until
it is heard from again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from privacy.audit.egress import Sent
from strategies.messages import RECORD, REFUSED, SPENT, part_name
from strategies.task import SiteId

_SITE_ERRORS = (1, 2)  # Flower's codes for a ClientApp that could not be loaded, and for one that raised

Clock = Callable[[], float]
Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Timing:
    """How long to wait; seconds, all > 0.

    Attributes:
      deadline: For one question to all sites.
      first_poll: Pause after the first look for answers; doubles up to ``longest_poll``.
      patience: Deadlines that a site may miss in a row before the others stop waiting for it.
    """

    deadline: float = 30.0
    first_poll: float = 0.0005
    longest_poll: float = 0.2
    patience: int = 2


@dataclass
class Egress:
    """What left one site, as the server received it."""

    messages: int = 0
    bytes: int = 0
    unmasked_arrays: int = 0


@dataclass(frozen=True)
class Answers:
    """Outcome of one question: bytes from those who answered in time, a plain reason for everyone else."""

    payloads: Mapping[SiteId, bytes]
    missing: Mapping[SiteId, str]


@dataclass
class Exchange:
    """Asks sites and collects answers; survives late, missing, failed and malformed ones.

    Attributes:
      nodes: Flower's node id per site, in the federation's site order.
      egress: Running account per site.
      manifest: Every payload received per site, in time or late, in the order of arrival.
      received: Told of each as it comes, so that it can be written down before a crash.
      spent: Sites whose privacy budget has no room left, with what they said.
    """

    grid: Grid
    nodes: Mapping[SiteId, int]
    timing: Timing
    clock: Clock
    sleep: Sleep
    egress: dict[SiteId, Egress] = field(default_factory=dict)
    manifest: dict[SiteId, list[Sent]] = field(default_factory=dict)
    received: Callable[[SiteId, Sent], None] = lambda _site, _sent: None
    spent: dict[SiteId, str] = field(default_factory=dict)
    _silent: dict[SiteId, int] = field(default_factory=dict)
    _late: dict[str, SiteId] = field(default_factory=dict)
    _asked: dict[str, tuple[str, str]] = field(default_factory=dict)  # kind and group of questions without an answer

    def ask(self, kind: str, questions: Mapping[SiteId, bytes], *, group: str) -> Answers:
        """Sends one question to each site and waits, at most until the deadline.

        Args:
          kind: Flower message type.
          questions: Payload per site.
          group: Flower's group id, the round.

        Returns: Answers in the order of ``questions``; every site is in exactly one of the two parts.
        """
        waiting = self._push(kind, questions, group)
        payloads: dict[SiteId, bytes] = {}
        missing = {site: "the question could not be sent" for site in questions if site not in waiting.values()}
        end, pause = self.clock() + self.timing.deadline, self.timing.first_poll
        while waiting:
            for site, outcome in self._pull(waiting):
                if isinstance(outcome, bytes):
                    payloads[site] = outcome
                else:
                    missing[site] = outcome.reason
            # Nobody is given up on while nobody answers: an outage of everybody is no fault of anybody.
            patient = not payloads or any(self._silent.get(site, 0) < self.timing.patience for site in waiting.values())
            if not waiting or self.clock() >= end or not patient:
                break
            self.sleep(pause)
            pause = min(pause * 2, self.timing.longest_poll)
        for message_id, site in waiting.items():
            self._silent[site] = self._silent.get(site, 0) + 1
            self._late[message_id] = site
            missing[site] = f"no answer within {self.timing.deadline:g} s"
            if self._silent[site] > self.timing.patience:
                missing[site] = "silent too often; asked, but no longer waited for"
        order = {site: place for place, site in enumerate(questions)}
        return Answers(
            {site: payloads[site] for site in sorted(payloads, key=order.__getitem__)},
            {site: missing[site] for site in sorted(missing, key=order.__getitem__)},
        )

    def _push(self, kind: str, questions: Mapping[SiteId, bytes], group: str) -> dict[str, SiteId]:
        messages = [
            Message(
                RecordDict({RECORD: ConfigRecord({RECORD: payload})}),
                dst_node_id=self.nodes[site],
                message_type=kind,
                group_id=group,
                ttl=self.timing.deadline + 60,
            )
            for site, payload in questions.items()
        ]
        # Grids differ in what they return for a message that they could not take: None, nothing, or an empty list.
        taken = set(self.grid.push_messages(messages))
        ids = (message.metadata.message_id for message in messages)
        sent = {message_id: site for message_id, site in zip(ids, questions, strict=True) if message_id in taken}
        self._asked.update(dict.fromkeys(sent, (kind, group)))
        return sent

    def _pull(self, waiting: dict[str, SiteId]) -> "list[tuple[SiteId, bytes | _Failed]]":
        """Takes what has arrived off ``waiting``; a late answer to an older question only shows that a site lives."""
        fresh = []
        for reply in self.grid.pull_messages([*waiting, *self._late]):
            message_id = reply.metadata.reply_to_message_id
            site = waiting.pop(message_id, None)
            in_time = site is not None
            site = site or self._late.pop(message_id, None)
            if site is None:
                continue  # an answer to nothing we asked
            asked = self._asked.pop(message_id)
            if _came_from_site(reply):
                self._silent[site] = 0
                self._count(site, reply, asked)
                if reply.has_error() and reply.error.code == SPENT:
                    self.spent[site] = _plain(reply.error.reason)
            if in_time:
                fresh.append((site, _outcome(reply)))
        return fresh

    def _count(self, site: SiteId, reply: Message, asked: tuple[str, str]) -> None:
        account = self.egress.setdefault(site, Egress())
        account.messages += 1
        outcome = _outcome(reply)
        if isinstance(outcome, bytes):
            account.bytes += len(outcome)
            sent = Sent.of(*asked, outcome)
            self.manifest.setdefault(site, []).append(sent)
            self.received(site, sent)


def _came_from_site(reply: Message) -> bool:
    """Whether a site answered, if only with an error; Flower itself writes error replies for nodes that are gone."""
    return not reply.has_error() or reply.error.code in _SITE_ERRORS or reply.error.code >= REFUSED


@dataclass(frozen=True)
class _Failed:
    reason: str


def _outcome(reply: Message) -> bytes | _Failed:
    if reply.has_error():
        return _Failed(_plain(reply.error.reason))
    parts: list[bytes] = []
    while True:
        name = part_name(len(parts))
        record = reply.content.get(name)
        data = record.get(name) if isinstance(record, ConfigRecord) else None
        if not isinstance(data, bytes):
            return b"".join(parts) if parts else _Failed("the answer carries no message")
        parts.append(data)


def _plain(reason: str | None) -> str:
    """One short printable line: a peer's text goes into logs and reports."""
    words = "".join(character if character.isprintable() else " " for character in reason or "")
    return " ".join(words.split())[:200] or "the site reported an error"
