"""Who takes part: maps the federation's sites to Flower's nodes, once, before the first round or when a run goes on.

A run that goes on calls the roll anew, and a site that answered a round may not come back. Its report still says what
that site paid and how its release path was tested, so what it said lies in the run's folder (``keep``, ``kept``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr.serverapp import Grid

from privacy.audit.egress import Sent
from privacy.conformance import statements
from privacy.errors import ConfigError, PrivacyError, QuorumError, RemoteProtocolError
from privacy.store.run_folder import RunFolder, read_text
from server.exchange import Clock, Exchange, Sleep, Timing
from strategies.messages import HELLO, Hello
from strategies.task import SiteId

ROLL_FILE = "roll.hex"
"""Of a run's folder: the last `Hello` of every site that ever answered this run's roll call, a line each."""
_DAMAGED = "Bring back an intact copy of the folder, or run anew; what was spent stays spent."


@dataclass(frozen=True)
class Roster:
    """The sites of a run; all fields are public.

    Attributes:
      nodes: Flower's node id per site that answered, in the federation's site order.
      n_records: Training records per such site, and per site that answered an earlier roll call of the run only.
      absent: Plain reason per site that did not.
      seen: How many entries of the server's log each such site has seen.
      received: What each such site sent in answer.
      conformance: What each site in ``n_records`` found when it last tested its own release paths; empty without noise.
    """

    nodes: Mapping[SiteId, int]
    n_records: Mapping[SiteId, int]
    absent: Mapping[SiteId, str]
    seen: Mapping[SiteId, int] = field(default_factory=dict)
    received: Mapping[SiteId, tuple[Sent, ...]] = field(default_factory=dict)
    conformance: Mapping[SiteId, bytes] = field(default_factory=dict)

    def after(self, earlier: "Roster", sites: Sequence[SiteId]) -> "Roster":
        """Returns this roster with what sites said earlier that are not there now, all in site order."""
        n_records = {**earlier.n_records, **self.n_records}
        conformance = {**earlier.conformance, **self.conformance}
        known = [site for site in sites if site in n_records]
        return replace(
            self,
            n_records={site: n_records[site] for site in known},
            conformance={site: conformance[site] for site in known},
        )


def keep(folder: RunFolder, roster: Roster) -> None:
    """Writes what sites said, whole and durably, before any of them is asked for more.

    Raises: ConfigError: It cannot be written: nobody may be asked.
    """
    said = [Hello(site, n, conformance=roster.conformance[site]) for site, n in roster.n_records.items()]
    folder.write(ROLL_FILE, "".join(hello.encode().hex() + "\n" for hello in said).encode())


def kept(folder: RunFolder, sites: Sequence[SiteId]) -> Roster:
    """Returns what sites said at earlier roll calls of a run, as a roster where nobody is there now.

    Args:
      folder: Of the run.
      sites: Of the run.

    Raises: ConfigError: The file is damaged, or holds what no roll call accepts.
    """
    path = folder.path / ROLL_FILE
    lines = read_text(path).splitlines() if path.exists() else []
    try:
        said = {hello.site: hello for hello in (_read_again(line, sites) for line in lines)}
    except (ValueError, ConfigError, PrivacyError, RemoteProtocolError) as error:
        raise ConfigError(f"{path} is damaged: {error}", hint=_DAMAGED) from error
    n_records = {site: hello.n_records for site, hello in said.items()}
    return Roster({}, n_records, {}, conformance={site: hello.conformance for site, hello in said.items()})


def _read_again(line: str, sites: Sequence[SiteId]) -> Hello:
    """Checks a line of the file as if the site had said it now."""
    hello = Hello.decode(bytes.fromhex(line))
    if hello.site not in sites:
        raise ConfigError(f"{hello.site} is no site of this run")
    statements.check(hello.conformance, who=hello.site)
    return hello


def call(  # the arguments are the whole environment of a pure procedure
    grid: Grid,
    sites: Sequence[SiteId],
    invitation: bytes,
    *,
    timing: Timing,
    clock: Clock,
    sleep: Sleep,
    floor: int,
    expected: Mapping[SiteId, int] | None = None,
) -> Roster:
    """Calls the roll: waits for nodes, invites each and hears who it is.

    Args:
      grid: Where the nodes are.
      sites: Everyone the federation expects, in site order; others are ignored.
      invitation: What they are invited to, signed; a site whose gate refuses it is absent.
      timing: The deadline holds for the wait for nodes, and again for their answers.
      clock: Monotonic seconds.
      sleep: Waits.
      floor: Fewest sites with which the run may go on.
      expected: Node of each site, where it follows from its key; ``None`` in a simulation: they are believed.

    Raises: QuorumError: Fewer than ``floor`` sites answered.
    """
    node_ids = _wait_for_nodes(grid, len(sites), timing, clock, sleep)
    # Until a node has said which site it is, it goes by its number.
    unnamed = {SiteId(f"node {node_id}"): node_id for node_id in node_ids}
    exchange = Exchange(grid, unnamed, timing, clock, sleep)
    answers = exchange.ask(HELLO, dict.fromkeys(unnamed, invitation), group="0")
    reasons = list(answers.missing.values())
    said = dict(_heard(answers.payloads, unnamed, reasons, expected))
    nodes = _nodes({name: hello for name, hello in said.items() if hello.site in sites and hello.n_records}, unnamed)
    heard = {hello.site: hello for hello in sorted(said.values(), key=lambda hello: hello.n_records)}
    present = [site for site in sites if site in nodes]
    why = "; ".join(sorted(set(reasons))) or "it did not answer the roll call"
    absent = {site: "it has no records" if site in heard else why for site in sites if site not in nodes}
    if len(present) < floor:
        raise QuorumError(
            f"{len(present)} of {len(sites)} sites answered the roll call, at least {floor} are needed",
            hint="; ".join(f"{site}: {reason}" for site, reason in absent.items()),
        )
    return Roster(
        {site: nodes[site] for site in present},
        {site: heard[site].n_records for site in present},
        absent,
        {site: heard[site].seen for site in present},
        {site: tuple(exchange.manifest[SiteId(f"node {nodes[site]}")]) for site in present},
        {site: heard[site].conformance for site in present},
    )


def _heard(
    payloads: Mapping[SiteId, bytes],
    unnamed: Mapping[SiteId, int],
    reasons: list[str],
    expected: Mapping[SiteId, int] | None,
) -> Iterator[tuple[SiteId, Hello]]:
    """Yields what each node says of itself, by the node's name; what is wrong with the others goes to ``reasons``."""
    for name, payload in payloads.items():
        try:
            hello = Hello.decode(payload)
            statements.check(hello.conformance, who=hello.site)
        except (ConfigError, PrivacyError, RemoteProtocolError) as error:
            reasons.append(str(error))
            continue
        if expected is not None and expected.get(hello.site) != unnamed[name]:
            reasons.append(f"another node says that it is {hello.site}")
            continue
        yield name, hello


def _nodes(said: Mapping[SiteId, Hello], unnamed: Mapping[SiteId, int]) -> dict[SiteId, int]:
    """Returns the node of each site. Raises: QuorumError: Two nodes say that they are the same one."""
    nodes: dict[SiteId, int] = {}
    for name, hello in said.items():
        if hello.site in nodes:
            raise QuorumError(f"two nodes say that they are {hello.site}")
        nodes[hello.site] = unnamed[name]
    return nodes


def _wait_for_nodes(grid: Grid, expected: int, timing: Timing, clock: Clock, sleep: Sleep) -> list[int]:
    end, pause = clock() + timing.deadline, timing.first_poll
    while True:
        node_ids = sorted(grid.get_node_ids())
        if len(node_ids) >= expected or clock() >= end:
            return node_ids
        sleep(pause)
        pause = min(pause * 2, timing.longest_poll)
