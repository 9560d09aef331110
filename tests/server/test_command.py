"""`collegium server`: what a person asks for becomes the job that they meant, if the policy lets them, or one line."""

import signal
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from privacy.charter.rules import CharterRefusalError
from privacy.command import _outcome
from privacy.dp.plan import Unit
from privacy.errors import ConfigError
from server import command, real_run
from server.authority import NotAllowedError
from strategies.job import Job
from strategies.study import read_study
from tests.clients.invited import Parties
from tests.federation import ASSET, SITES, STUDY, Federation, federate, study_of

RUN = "first"


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federate(tmp_path_factory.mktemp("founded") / "north")


@pytest.fixture
def parties(founded: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parties:
    made = Parties(founded.copied(tmp_path / "north"))
    monkeypatch.setattr(real_run, "session", made.session)
    return made


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command sets these for its own process, which here is everybody's."""
    monkeypatch.setattr("os.umask", lambda _mask: 0o077)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def accesses(parties: Parties) -> list[Mapping[str, Any]]:
    entries = parties.federation.hub.log().entries()
    return [entry.record.content for entry in entries if entry.record.kind == "access"]


def started(parties: Parties, strategy: str = "fedavg", **options: Any) -> Path:
    given = {"asset": ASSET, "privacy": ["none"], "name": RUN, "deadline": 20.0, "settings": ["rounds=1"], **options}
    command.run(strategy, parties.federation.hub.path, **{**DEFAULTS, **given})
    return parties.federation.hub.path / "runs" / RUN


DEFAULTS: dict[str, Any] = {"purpose": "training", "epsilon": "1", "delta": "0.001", "seed": 42, "sites": ""}


def test_a_run_is_begun_driven_shown_and_read(
    parties: Parties, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, hub = started(parties), parties.federation.hub.path
    command.status(hub)
    assert f"{RUN}  finished  fedavg, privacy none, 4 sites" in capsys.readouterr().out
    command.read("model", RUN, hub, tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == (folder / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="cannot be written"):
        command.read("model", RUN, hub, tmp_path / "model")
    assert [entry["action"] for entry in accesses(parties)] == ["start", "read-status", "read-model", "read-model"]


def test_a_damaged_run_file_hides_no_other_run(parties: Parties, capsys: pytest.CaptureFixture[str]) -> None:
    folder, hub = started(parties), parties.federation.hub.path
    whole = (folder / "run.toml").read_text(encoding="utf-8")
    for name, text in (("cut", whole[:37]), ("empty", "")):
        (folder.with_name(name)).mkdir()
        (folder.with_name(name) / "run.toml").write_text(text, encoding="utf-8")
    command.status(hub)
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert "not valid TOML" in lines[0]
    assert "does not say how the run stands" in lines[1]
    assert lines[2].startswith(f"{RUN}  finished")
    for name in ("cut", "empty"):
        with pytest.raises(ConfigError, match=r"not valid TOML|does not say how"):
            command.stop(name, hub)


@pytest.mark.parametrize("number", ["1e999999", "-1e-999999", "1e31", "nan", "inf"])
def test_a_number_beyond_all_use_is_refused_at_once(number: str, parties: Parties) -> None:
    with pytest.raises(ConfigError, match="must be a finite number between"):
        started(parties, settings=[f"rounds={number}"])
    assert not (parties.federation.hub.path / "runs" / RUN).exists()


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e300", "0", "-1"])
@pytest.mark.parametrize(
    "words",
    [
        ("server", "run", "fedavg", "nowhere", "--asset", "heart"),
        ("server", "resume", "first", "nowhere"),
        ("predict", "nowhere", "--rows", "2"),
        ("stage", "serve", "nowhere"),
    ],
    ids=" ".join,
)
def test_a_deadline_that_is_none_is_refused_before_anything_is_begun(
    words: tuple[str, ...], seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _outcome([*words, "--deadline", seconds]) == 2
    said = capsys.readouterr().err
    assert "--deadline" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("action", "act"),
    [
        ("start", lambda hub, _out: command.run("fedavg", hub, **{**DEFAULTS, "asset": ASSET, "name": "second"})),
        ("resume", lambda hub, _out: command.resume(RUN, hub)),
        ("stop", lambda hub, _out: command.stop(RUN, hub)),
        ("read-model", lambda hub, out: command.read("model", RUN, hub, out)),
        ("read-report", lambda hub, out: command.read("report", RUN, hub, out)),
        ("read-status", lambda hub, _out: command.status(hub)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_account_without_a_role_does_nothing(
    action: str, act: Callable[[Path, Path], None], parties: Parties, tmp_path: Path
) -> None:
    begun = parties.coordinator
    job = parties.job(rounds="1")
    begun.begin(job, begun.invite(job, run=RUN, purpose="training", asset=ASSET))
    path = parties.federation.hub.path / "server.toml"
    path.write_text(path.read_text().partition("[roles]")[0])
    with pytest.raises(NotAllowedError, match=f"may not {action} here"):
        act(parties.federation.hub.path, tmp_path / "out")
    (entry,) = accesses(parties)
    assert (entry["action"], entry["allowed"]) == (action, False)
    assert [folder.name for folder in (parties.federation.hub.path / "runs").iterdir()] == [RUN]
    assert not (tmp_path / "out").exists()
    assert parties.decisions("alba") == [], "no site was asked"


def test_what_the_charter_does_not_list_is_begun_by_nobody(parties: Parties) -> None:
    listed = parties.federation.charter.body["strategies"]
    parties.federation.amend(strategies={"fedavg": listed["fedavg"]})
    with pytest.raises(CharterRefusalError):
        started(parties, "fedprox")
    assert not (parties.federation.hub.path / "runs").exists()
    assert parties.decisions("alba") == []


def job(*privacy: str, strategy: str = "fedavg", study: str = "", **given: Any) -> Job:
    options = {"epsilon": "1", "delta": "0.001", "seed": 1, "settings": [], "sites": "", **given}
    return command._job(read_study(study or study_of(), where="study.toml"), strategy, privacy, **options)


def test_what_a_person_asks_for_is_the_job() -> None:
    one = job(
        "distributed", "record", strategy="fedprox", sites="cork,alba,dole", epsilon="0.5", delta="1e-5", seed=9,
        settings=["rounds=7", "mu=0.25", "unit=site", "clip=2"],
    )  # fmt: skip
    assert (one.strategy, one.sites, one.seed) == ("fedprox", ("alba", "cork", "dole"), 9)
    assert (one.privacy, one.unit, one.epsilon, one.delta) == (
        ("record", "distributed"), Unit.SITE, Decimal("0.5"), Decimal("1E-5")
    )  # fmt: skip
    assert (one.task.training.rounds, one.task.training.clip, vars(one.algorithm)) == (7, 2.0, {"mu": 0.25})
    assert (job("none").privacy, job().privacy, job("site").unit) == ((), (), Unit.SITE)
    assert job().sites == SITES


def test_the_unit_of_shared_noise_follows_the_settings_of_the_run() -> None:
    """Not those of the study, which the run may change."""
    long = STUDY.replace("rounds = 3", "rounds = 3\nlocal_steps = 4")
    assert job("distributed", study=study_of(text=long), settings=["local_steps=1"]).unit is Unit.RECORD
    with pytest.raises(ConfigError, match="one step a round"):
        job("distributed", study=study_of(text=long))
    with pytest.raises(ConfigError, match="one step a round"):
        job("distributed", settings=["local_steps=4"])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"strategy": "fedmagic"}, "unknown strategy"),
        ({"privacy": ("pretended",)}, "--privacy pretended is none of"),
        ({"settings": ["rounds"]}, "key=value"),
        ({"settings": ["=3"]}, "key=value"),
        ({"settings": ["rounds=many"]}, "--set rounds must be a number"),
        ({"settings": ["rounds=nan"]}, "finite"),
        ({"settings": ["rounds=0"]}, "rounds = 0"),
        ({"settings": ["magic=1"]}, "no setting 'magic'"),
        ({"settings": ["unit=village"], "privacy": ("distributed",)}, "unit"),
        ({"settings": ["unit=site"]}, "--set unit goes with --privacy distributed"),
        ({"privacy": ("record", "site")}, "--privacy record --privacy site is not offered"),
        ({"epsilon": "lots"}, "--epsilon must be a number"),
        ({"delta": "Infinity"}, "--delta must be a finite number"),
        ({"sites": "alba,nowhere"}, "no site 'nowhere'"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_one_line(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        job(*given.pop("privacy", ()), **given)
    assert len(caught.value.lines()) <= 2


@pytest.mark.parametrize("name", ["../away", "a/b", ".hidden", "A", "x" * 65])
def test_a_run_has_a_name_that_is_no_path(name: str, parties: Parties) -> None:
    with pytest.raises(ConfigError, match="names no run"):
        started(parties, name=name)
    with pytest.raises(ConfigError, match="names no run"):
        command.read("model", name, parties.federation.hub.path, Path("nowhere"))


def test_a_run_that_there_is_not_is_not_stopped_resumed_or_read(parties: Parties, tmp_path: Path) -> None:
    hub = parties.federation.hub.path
    for act in (command.stop, command.resume):
        with pytest.raises(ConfigError, match="there is no run second"):
            act("second", hub)
    with pytest.raises(ConfigError):
        command.read("model", "second", hub, tmp_path / "out")
    with pytest.raises(ConfigError, match="no 'keys' to read"):
        command.read("keys", RUN, hub, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_peers_are_those_of_the_charter_in_force(parties: Parties) -> None:
    federation = parties.federation
    peers = command.peers_of(federation.hub)
    assert peers.federation == "north"
    assert peers.revoked == frozenset()
    uris = {f"spiffe://north/site/{site}": federation.folders[site].enrolment.flower for site in federation.sites}
    assert dict(peers.flower_keys) == uris
    federation.amend("hub", revoked=["1f"])
    assert command.peers_of(federation.hub).revoked == {"1f"}
