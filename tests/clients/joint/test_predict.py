"""`collegium serve` and `predict`: home models of real folders, over gRPC and mutual TLS on loopback."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from clients.assets import load
from clients.channel.credentials import Identity
from clients.channel.dialler import Dialler
from clients.channel.listener import Listener
from clients.channel.session import FAILED, RemoteRefusalError
from clients.joint.client import Client
from clients.joint.model import HOME_FILE, OwnModel, open_model
from clients.joint.serving import services_of
from clients.joint.terms import Queries
from privacy import command
from privacy.errors import ConfigError, FederationError
from privacy.store.log import Record
from privacy.store.site_folder import SiteFolder
from strategies.messages import CLOSE, MASKED, Closing
from strategies.study import read_study
from tests.clients.channel.ends import keeper
from tests.clients.invited import RUN, Parties
from tests.clients.joint.scene import PURPOSE, inference
from tests.clients.node import body_of
from tests.federation import ASSET, CHANNEL_POLICY, SITES, federate, study_of
from tests.integration.real import free_port


def now() -> datetime:
    return datetime.now(UTC)


def recording(folder: SiteFolder) -> Callable[[Record], None]:
    """Writes to a site's log."""
    log = folder.log()

    def record(entry: Record) -> None:
        log.append([entry], folder.identity)

    return record


class Town:
    """Four sites that serve, in this process.

    Attributes:
      models: By site, as its process has it.
    """

    def __init__(self, path: Path) -> None:
        self.federation = federate(path, policy=CHANNEL_POLICY, inference=inference())
        self.ports = {site: free_port() for site in SITES}
        peers = "".join(f'{site} = "127.0.0.1:{port}"\n' for site, port in self.ports.items())
        for site, port in self.ports.items():
            file = self.federation.folders[site].path / "site.toml"
            file.write_text(f'{file.read_text()}\n[channel]\nlisten = "127.0.0.1:{port}"\n[channel.peers]\n{peers}')
        self.study = read_study(self.federation.folders["alba"].study, where="study.toml")
        self.models: dict[str, OwnModel] = {}
        self._open: dict[str, ExitStack] = {}

    def serve(self, *sites: str) -> None:
        """Starts what `collegium serve` runs."""
        for site in sites:
            folder = self.federation.folders[site]
            own, record = Identity.of_folder(folder, now), recording(folder)
            self.models[site] = open_model(folder, self.study, "home")
            services = services_of(folder, own, self.study, self.models[site], now)
            self._open[site] = ExitStack()
            self._open[site].enter_context(Listener(f"127.0.0.1:{self.ports[site]}", own, services, record=record))

    def stop(self, *sites: str) -> None:
        """Ends them."""
        for site in sites or [*self._open]:
            self._open.pop(site).close()

    def rows(self, site: str, n: int) -> Queries:
        """Test rows of a site."""
        asset = self.federation.folders[site].settings.assets[ASSET]
        return load(asset, self.study.task).test.x[:n]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    made = Town(tmp_path_factory.mktemp("town") / "fed")
    made.serve(*SITES)
    yield made
    made.stop()


def test_the_mean_of_the_home_models_comes_back_over_the_channel(town: Town) -> None:
    x = town.rows("alba", 12)
    with Client(town.federation.folders["alba"], now=now) as client:
        for _ in range(2):
            answer = client.predict(x, mode="ensemble")
            exact = np.mean([town.models[site].score(x) for site in SITES], axis=0)
            np.testing.assert_allclose(answer.scores, exact, atol=2**-23)
            assert (answer.mode, answer.agents, answer.spent, answer.fell_back) == ("ensemble", 4, None, "")
        local = client.predict(x)
        np.testing.assert_array_equal(local.scores, town.models["alba"].score(x))
        assert (local.mode, local.agents) == ("local", 1)


def test_without_one_agent_the_own_model_answers_and_says_so(town: Town) -> None:
    x = town.rows("brno", 3)
    with Client(town.federation.folders["brno"], now=now) as client:
        assert client.predict(x, mode="ensemble").fell_back == ""
        town.stop("dole")
        fallen = client.predict(x, mode="ensemble", deadline=3.0)
        assert fallen.mode == "local"
        assert fallen.agents == 1
        assert "dole" in fallen.fell_back
        assert "\n" not in fallen.fell_back
        np.testing.assert_array_equal(fallen.scores, town.models["brno"].score(x))
        town.serve("dole")  # a process that starts anew
        assert client.predict(x, mode="ensemble").agents == 4


def test_a_process_that_started_anew_between_two_batches_costs_no_answer(town: Town) -> None:
    with Client(town.federation.folders["brno"], now=now) as client:
        assert client.predict(town.rows("brno", 2), mode="ensemble").agents == 4
        town.stop("cork")
        town.serve("cork")
        assert client.predict(town.rows("brno", 2), mode="ensemble").fell_back == ""


def test_neither_all_nor_the_own_process_is_no_answer(town: Town) -> None:
    with Client(town.federation.folders["cork"], now=now) as client:
        town.stop("cork")
        try:
            with pytest.raises(FederationError, match="cork") as refused:
                client.predict(town.rows("cork", 1), mode="ensemble", deadline=2.0)
            assert len(refused.value.lines()) <= 2
        finally:
            town.serve("cork")


def test_nobody_but_the_site_itself_gets_a_local_answer(town: Town) -> None:
    dialler = Dialler(Identity.of_folder(town.federation.folders["brno"], now))
    with pytest.raises(FederationError, match="for the site itself"):
        dialler.open(f"127.0.0.1:{town.ports['alba']}", "alba", kind="local", purpose=PURPOSE)
    dialler.close()
    told = town.federation.folders["alba"].log().entries()[-1].record
    assert (told.kind, told.content["asker"]) == ("unanswered", "brno")


def test_the_keeper_of_the_root_gets_no_local_answer_in_a_sites_name(town: Town) -> None:
    dialler = Dialler(keeper(town.federation, "alba"))
    with pytest.raises(RemoteRefusalError, match=r"does not hold the key .* lists for alba"):
        dialler.open(f"127.0.0.1:{town.ports['alba']}", "alba", kind="local", purpose=PURPOSE)
    dialler.close()
    refused = town.federation.folders["alba"].log().entries()[-1].record
    assert (refused.kind, refused.content["peer"]) == ("channel-refused", "alba")


@pytest.mark.parametrize("mode", ["local", "ensemble"])
def test_an_agent_whose_policy_is_gone_says_nothing_of_its_disk(town: Town, mode: str) -> None:
    folder = town.federation.folders["alba"]
    policy = (folder.path / "site.cedar").read_bytes()
    (folder.path / "site.cedar").unlink()
    try:
        with (
            Client(folder, now=now) as client,
            pytest.raises(FederationError, match=f"{FAILED}$") as refused,
        ):
            client.predict(town.rows("alba", 1), mode=mode, deadline=3.0)  # type: ignore[arg-type]
    finally:
        (folder.path / "site.cedar").write_bytes(policy)
    assert "/" not in str(refused.value)
    logged = folder.log().entries()[-1].record
    assert (logged.kind, "site.cedar is not there" in logged.content["reason"]) == ("unanswered", True)


@pytest.mark.parametrize("mode", ["local", "ensemble"])
def test_a_purpose_that_the_charter_does_not_list_is_refused(town: Town, mode: str) -> None:
    with (
        Client(town.federation.folders["alba"], now=now) as client,
        pytest.raises(FederationError, match="curiosity"),
    ):
        client.predict(town.rows("alba", 1), mode=mode, purpose="curiosity", deadline=3.0)  # type: ignore[arg-type]


def test_the_command_asks_about_a_table_and_about_own_test_rows(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "new.csv"
    table.write_text("age,smoker\n30,no\n85,yes\n")
    folder = str(town.federation.folders["dole"].path)
    assert (
        told(capsys, "predict", folder, "--csv", str(table), "--mode", "ensemble")
        .splitlines()[-1]
        .startswith("ensemble: 4 sites, ")
    )
    found = json.loads(told(capsys, "predict", folder, "--rows", "5", "--json"))
    assert (found["mode"], len(found["classes"]), found["epsilon"]) == ("local", 5, None)
    assert found["classes"] == [int(row.argmax()) for row in town.models["dole"].score(town.rows("dole", 5))]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints; `main` would end a process that has listeners at work."""
    command.app([*arguments], standalone_mode=False)
    return capsys.readouterr().out


def test_a_home_model_is_trained_once_and_again_when_somebody_opted_out(town: Town) -> None:
    folder = town.federation.folders["alba"]
    before = (folder.path / HOME_FILE).read_bytes()
    open_model(folder, town.study, "home")
    assert (folder.path / HOME_FILE).read_bytes() == before
    path = town.federation.data("alba")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-5]))
    open_model(folder, town.study, "home")
    assert (folder.path / HOME_FILE).read_bytes() != before


def test_a_run_s_model_and_the_home_model_are_told_apart_and_made_of_the_same_asset(parties: Parties) -> None:
    """A whole charter may change around them: what is fixed for an asset is fixed for both."""
    job, folder = parties.job("record"), parties.federation.folders["alba"]
    body_of(parties.hello("alba", parties.signed(job)))
    body_of(parties.ask("alba", MASKED, parties.start("alba", job)))
    body_of(parties.ask("alba", CLOSE, Closing(job.digest, 3, job.initial).encode()))
    of_run = open_model(folder, parties.federation.study, f"run:{RUN}")
    home = open_model(folder, parties.federation.study, "home")
    assert [(each.source, each.asset) for each in (of_run, home)] == [(f"run:{RUN}", ASSET), ("home", ASSET)]
    np.testing.assert_array_equal(of_run.parameters, job.initial)
    study = study_of((*SITES, "evil"))  # another digest, and the very same model
    again = open_model(folder, read_study(study, where="study.toml"), "home")
    np.testing.assert_array_equal(again.parameters, home.parameters)


def test_agents_are_asked_for_home_models_unless_a_run_is_named(town: Town) -> None:
    x = town.rows("alba", 2)
    with Client(town.federation.folders["alba"], now=now) as client:
        assert client.predict(x, mode="ensemble").fell_back == ""
        fallen = client.predict(x, mode="ensemble", run="common")
        assert "another sum than the charter gives for these queries and the model home" in fallen.fell_back
        assert client.predict(x, mode="ensemble").fell_back == ""


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--run", "common"), "--run has no effect in mode local"),
        (("--mode", "ensemble", "--plan", "site.toml"), "--plan has no effect without --mode chain"),
    ],
)
def test_an_option_without_effect_is_refused(town: Town, options: tuple[str, ...], why: str) -> None:
    folder = town.federation.folders["dole"].path
    with pytest.raises(ConfigError, match=why):
        command.app(["predict", str(folder), "--rows", "1", *options], standalone_mode=False)


@pytest.mark.parametrize("wanted", ["run:never", "run:", "away", "run:../up"])
def test_a_model_that_is_not_there_is_one_plain_line(town: Town, wanted: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_model(town.federation.folders["alba"], town.study, wanted)
    assert len(refused.value.lines()) <= 2
