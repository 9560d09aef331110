"""A party's folder: what join lets in, what reading refuses, which certificate and which charter are in force."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from privacy.charter.document import from_body
from privacy.charter.signatures import decode
from privacy.dp.events import Event, GaussianEvent, Sampling, SamplingType
from privacy.dp.filters import Filter, FilterKind
from privacy.enrolment.certificates import fingerprint
from privacy.errors import BudgetExhaustedError, ConfigError, FederationError, UnsupportedEventError, VerificationError
from privacy.store import joining, site_keys
from privacy.store.budgets import Debit
from privacy.store.joining import Papers
from privacy.store.key_files import write_new
from privacy.store.log import Log, ledger_head
from privacy.store.site_folder import SiteFolder
from privacy.store.site_settings import read_site_settings
from tests.privacy.charter import example
from tests.privacy.enrolment.issuing import DAY, NOW, Authority
from tests.privacy.store.joined import SERVER, SITE_TOML, STUDY, Federation, files

# A Gaussian of multiplier 1 / mu is exactly (2, 0.001) private at mu = 0.6919 (the closed form of Balle and Wang, ICML
# 2018, solved with scipy): sums of 1 / 4^2 stay below mu^2 = 0.4788 seven times.
N_FULL = 7


@pytest.fixture
def north(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


def refused(north: Federation, papers: Papers, reason: str, *, name: str = "alba", digest: str = "") -> None:
    """The one plain reason, and not a file more or less than before."""
    folder = north.folders[name]
    before = files(folder)
    told = digest or decode(papers.charters[-1]).charter.digest
    with pytest.raises(FederationError, match=reason):
        joining.join(folder, papers, root=fingerprint(north.authority.root), digest=told, now=NOW)
    assert files(folder) == before
    assert not folder.joined


def test_a_site_that_joined_finds_everything(north: Federation) -> None:
    folder = SiteFolder(north.join().path)
    assert folder.joined
    assert folder.holder.uri == "spiffe://north/site/alba"
    assert folder.charter.digest == north.charter().charter.digest
    assert folder.settings.address == ("127.0.0.1", 9443)
    assert (folder.study, folder.origin) == (STUDY, "north/site/alba")
    assert folder.log().key.name == "north/site/alba"
    assert [entry.record.kind for entry in folder.log().entries()] == ["created", "charter"]
    assert folder.tls(NOW) == tuple(folder.path / name for name in ("tls.crt", "tls.key", "ca.crt"))
    for path in folder.path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600 or path.name == "table.csv"


def test_the_coordinator_joins_with_the_same_code(north: Federation) -> None:
    folder = north.join(SERVER)
    assert folder.server_settings.listen == ("127.0.0.1", 0)
    assert (folder.settings_file, folder.origin) == ("server.toml", "north/server/hub")
    with folder.ledger().reading() as books:
        assert set(books.assets["hearts"].budgets) == {"site"}
    with pytest.raises(ConfigError, match="of a server, not of a site"):
        _ = folder.settings
    with pytest.raises(ConfigError, match="of a site, not of a server"):
        _ = north.folders["brno"].server_settings


def test_papers_that_do_not_hold_are_refused(north: Federation) -> None:
    papers = north.papers()
    refused(north, papers, "has the digest", digest="0" * 64)
    refused(north, replace(papers, certificate=north.leaf("brno")), "is that of spiffe://north/site/brno")
    refused(north, replace(papers, certificate=north.leaf(days=-0.5)), "expired|not valid after|until")
    other = Authority.of(2, "north")
    refused(north, replace(papers, root=other.root.public_bytes(Encoding.PEM)), "has the fingerprint")
    stranger = Authority.of(1, "north").leaf(north.folders["alba"].holder, north.authority.key)
    refused(north, replace(papers, certificate=stranger.public_bytes(Encoding.PEM)), "not for the TLS key in the")
    refused(north, replace(papers, study_digest="0" * 64), "not one that the charter lists")
    refused(north, replace(papers, settings=b"server = 'nowhere'"), "site.toml: server")
    refused(north, replace(papers, settings=b"\xff"), "not text in UTF-8")
    refused(north, replace(papers, patients=True), "protects a patient, and claims has 'record'")
    taken = SITE_TOML.replace("timezone", 'policy = "study.toml"\ntimezone').encode()
    refused(north, replace(papers, settings=taken), "names of their own")
    refused(north, replace(papers, settings=SITE_TOML.replace("hearts", "lungs").encode()), "no asset 'lungs'")
    other_use = SITE_TOML.replace('"training"', '"training", "selling"').encode()
    refused(north, replace(papers, settings=other_use), "hearts to be used for selling")
    refused(north, replace(papers, settings=SITE_TOML.encode() + b"epsilon = 2.1\n"), "more than the charter's 2")


@pytest.mark.parametrize(
    ("claims", "taken"),
    [
        ("{}", True),
        ("{}-distributed", True),
        ("site-distributed", True),
        ("{} site-distributed", True),
        ("site-distributed {}", True),
        ("{} {}-distributed", False),
        ("{}-distributed site-distributed", False),
        ("{} {}-distributed site-distributed", False),
    ],
)
@pytest.mark.parametrize("unit", ["record", "patient"])
def test_a_budget_that_no_run_could_ever_spend_is_refused(
    claims: str, taken: bool, unit: str, north: Federation
) -> None:
    listed = claims.replace("{}", unit).split()
    text = SITE_TOML + f"claims = {json.dumps(listed)}\n"
    papers = north.papers(settings=text.encode(), patients=unit == "patient")
    if taken:
        with north.join(papers=papers).ledger().reading() as books:
            assert set(books.assets["hearts"].budgets) == set(listed)
    else:
        refused(north, papers, f"hearts: no run is priced under {' and '.join(listed)}")


def test_a_root_of_another_federation_is_refused(north: Federation) -> None:
    south = Authority.of(3, "south")
    papers = north.papers(root=south.root.public_bytes(Encoding.PEM))
    digest = north.charter().charter.digest
    with pytest.raises(VerificationError, match="that of south, not of north"):
        joining.join(north.folders["alba"], papers, root=fingerprint(south.root), digest=digest, now=NOW)


def test_charters_that_are_not_this_partys_are_refused(north: Federation) -> None:
    body = dict(north.charter().charter.body)
    brno = next(one for one in body["sites"] if one["id"] == "brno")
    changes: dict[str, dict[str, str | None]] = {
        "identity key": {"identity": example.spelt("somebody else")},
        "Flower key": {"flower": example.flower("somebody else")},
        "host name": {"dns": "elsewhere.example"},
        "certificate's name": {"uri": None},
    }
    for what, change in changes.items():
        sites = [{**one, **change} if one["id"] == "alba" else one for one in body["sites"]]
        refused(north, north.papers("alba", north.charter(sites=sites)), f"another {what} for alba")
    without = [brno, *(one for one in body["sites"] if one["id"] not in {"alba", "brno"}), {**brno, "id": "evil"}]
    without[-1] |= {"identity": example.spelt("evil"), "flower": None, "dns": None, "uri": None}
    officers = [example.officer(one["id"]) for one in without]
    stranger = north.charter("brno", "cork", "dole", sites=without, officers=officers)
    refused(north, north.papers("alba", stranger), "names no site alba")
    refused(north, north.papers("alba", north.charter("alba", "brno")), "1 more of its own officers")
    server = {**body["server"], "identity": example.spelt("another hub")}
    refused(north, north.papers(SERVER, north.charter(server=server)), "another identity key for hub", name=SERVER)


def test_a_revoked_certificate_does_not_join(north: Federation) -> None:
    papers = north.papers("alba", north.charter(revoked=[format(77, "x")]), certificate=north.leaf(serial=77))
    refused(north, papers, "was revoked")


def test_a_second_join_changes_nothing(north: Federation) -> None:
    folder = north.join()
    before = files(folder)
    with pytest.raises(ConfigError, match="has joined already"):
        north.join()
    assert files(folder) == before


def writes(north: Federation, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Yields before each attempt; every attempt fails at a later write than the one before, until none fails."""
    real = write_new
    for n_whole in range(20):
        left = [n_whole]

        def fail(path: Path, data: bytes, left: list[int] = left) -> None:
            if not left[0]:
                raise ConfigError("no space")
            left[0] -= 1
            real(path, data)

        monkeypatch.setattr(joining, "write_new", fail)
        yield n_whole
        if north.folders["alba"].joined:
            return


def test_a_join_that_fails_at_any_write_leaves_nothing(north: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    before, papers = files(north.folders["alba"]), north.papers()
    n_writes = 0
    for n_whole in writes(north, monkeypatch):
        try:
            north.join("alba", papers)
        except ConfigError:
            assert files(north.folders["alba"]) == before
            n_writes = n_whole + 1
    assert n_writes == 6  # root, certificate, charter, study, policy, settings


def test_after_a_crash_the_same_join_ends(north: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that a killed join can leave behind is found to be the same; the ledger is not made anew."""
    papers, ledgers, digest = north.papers(), set(), north.charter().charter.digest
    real, folder = Path.unlink, north.folders["alba"]
    for _ in writes(north, monkeypatch):
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # killed: nothing is taken back
        try:
            joining.join(folder, papers, root=fingerprint(north.authority.root), digest=digest, now=NOW)
        except ConfigError as error:
            assert str(error) == "no space"  # noqa: PT017 - which of the two it is matters
        finally:
            monkeypatch.setattr(Path, "unlink", real)
        with folder.ledger().reading() as books:
            ledgers.add(books.ledger)
    assert len(ledgers) == 1
    assert folder.charter.version == 1


def test_what_lies_there_already_is_never_overwritten(north: Federation) -> None:
    write_new(north.folders["alba"].path / "study.toml", b"mine")
    refused(north, north.papers(), "study.toml exists")


def test_budgets_are_the_charters(north: Federation) -> None:
    def kind(claim: str = "record", more: str = "", **changes: object) -> FilterKind:
        text = SITE_TOML + f'claims = ["{claim}"]\n{more}\n'
        settings = read_site_settings(text, north.path)
        (asset,) = joining.assets_of(north.charter(**changes).charter, settings)
        budget = asset.budgets[claim]
        assert isinstance(budget, Filter)
        assert (budget.epsilon, budget.delta) == (Decimal("1.5" if more else 2), Decimal("0.001"))
        return budget.kind

    wider = {"fedavg": {"batch": {"low": "0", "high": "32"}}}
    assert kind() is FilterKind.GDP
    assert kind(strategies=wider) is FilterKind.RENYI
    assert kind(strategies={"fedavg": {}}) is FilterKind.RENYI
    assert kind("record-distributed") is FilterKind.RENYI
    assert kind(more='epsilon = 1.5\nfilter = "renyi"') is FilterKind.RENYI
    assert kind(more='epsilon = 1.5\nfilter = "gdp"', strategies=wider) is FilterKind.GDP


def debit(number: int, event: Event) -> Debit:
    return Debit("hearts", number, 1, event, limit=10**6, run="run-1")


def test_the_ledger_refuses_what_the_budget_does_not_cover(north: Federation) -> None:
    ledger = north.join().ledger()
    sampled = GaussianEvent(Decimal(2), Sampling(SamplingType.POISSON, Decimal("0.1")), 1)
    with pytest.raises(UnsupportedEventError):
        ledger.reserve([debit(1, sampled)])
    full = GaussianEvent(Decimal(4), replace(sampled.sampling, type=SamplingType.FULL, rate=Decimal(1)), 1)
    for number in range(N_FULL):
        ledger.reserve([debit(number, full)])
    with pytest.raises(BudgetExhaustedError):
        ledger.reserve([debit(N_FULL, full)])
    with pytest.raises(ConfigError, match="no budget for selling"):
        ledger.reserve([replace(debit(101, full), purpose="selling")])


def test_a_ledger_older_than_the_log_knows_is_refused(north: Federation) -> None:
    folder = north.join()
    copy = (folder.path / "ledger.db").read_bytes()
    ledger = folder.ledger()
    ledger.reserve([debit(1, GaussianEvent(Decimal(9), Sampling(SamplingType.FULL, Decimal(1)), 1))])
    with ledger.reading() as books:
        head = ledger_head(books.ledger, books.head)
    folder.log().append([head], folder.identity)
    folder.ledger()
    for end in ("-wal", "-shm"):
        (folder.path / f"ledger.db{end}").unlink(missing_ok=True)
    (folder.path / "ledger.db").write_bytes(copy)
    with pytest.raises(VerificationError):
        folder.ledger()


def test_a_log_of_another_key_is_refused(north: Federation) -> None:
    folder = north.join()
    (folder.path / "log.db").unlink()
    Log.create(folder.path / "log.db", folder.origin, example.key("evil"))
    with pytest.raises(VerificationError, match="not the one that this key belongs to"):
        folder.log()


@pytest.mark.parametrize("name", ["site.toml", "study.toml", "charter-1.json", "ca.crt", "tls.crt"])
def test_files_that_others_could_have_written_are_refused(north: Federation, name: str) -> None:
    folder = north.join()
    (folder.path / name).chmod(0o644)
    folder.tls(NOW), folder.settings, folder.study
    (folder.path / name).chmod(0o664)
    with pytest.raises(ConfigError, match=f"{name} could be written by somebody else"):
        folder.tls(NOW), folder.settings, folder.study
    (folder.path / name).rename(folder.path / "moved")
    (folder.path / name).symlink_to(folder.path / "moved")
    with pytest.raises(ConfigError, match=f"{name} cannot be read"):
        folder.tls(NOW), folder.settings, folder.study


def test_an_open_folder_or_key_is_refused(north: Federation) -> None:
    folder = north.join()
    (folder.path / "identity.key").chmod(0o640)
    with pytest.raises(ConfigError, match="open to other users"):
        _ = SiteFolder(folder.path).identity
    folder.path.chmod(0o750)
    for act in (lambda: SiteFolder(folder.path), lambda: folder.settings):
        with pytest.raises(ConfigError, match="open to other users"):
            act()


def test_keys_that_were_exchanged_are_refused(north: Federation) -> None:
    folder = north.join()
    for name in ("identity.key", "flower.key"):
        (folder.path / name).write_bytes((north.path / "brno" / name).read_bytes())
    opened = SiteFolder(folder.path)
    with pytest.raises(ConfigError, match=r"identity\.key is not the key that was enrolled"):
        _ = opened.identity
    with pytest.raises(ConfigError, match=r"flower\.key is not the key that was enrolled"):
        _ = opened.flower


def test_the_newest_certificate_in_force_is_used(north: Federation) -> None:
    folder = north.join()
    foreign = north.authority.leaf(folder.holder, site_keys.read_ec_key(north.path / "brno" / "tls.key"))
    with pytest.raises(ConfigError, match="for no TLS key"):
        joining.install_certificate(folder, foreign.public_bytes(Encoding.PEM), now=NOW)
    site_keys.renew(folder.path, "alba", "north", secrets.token_bytes)
    assert folder.tls(NOW).certificate.name == "tls.crt"  # the new key waits for its certificate
    path = joining.install_certificate(folder, north.leaf(key="tls-2.key", days=120, serial=78), now=NOW)
    assert path.name == "tls-2.crt"
    assert folder.tls(NOW) == tuple(folder.path / name for name in ("tls-2.crt", "tls-2.key", "ca.crt"))
    with pytest.raises(ConfigError, match="exists"):
        joining.install_certificate(folder, path.read_bytes(), now=NOW)
    assert folder.tls(NOW + 100 * DAY).certificate.name == "tls-2.crt"
    with pytest.raises(VerificationError):
        folder.tls(NOW + 130 * DAY)


def test_an_old_certificate_serves_until_the_new_one_begins(north: Federation) -> None:
    folder = north.join()
    site_keys.renew(folder.path, "alba", "north", secrets.token_bytes)
    joining.install_certificate(folder, north.leaf(key="tls-2.key", serial=78), now=NOW)
    assert folder.tls(NOW - timedelta(hours=2)).certificate.name == "tls.crt"
    with pytest.raises(VerificationError, match="is that of spiffe://north/site/brno"):
        joining.install_certificate(folder, north.leaf("brno"), now=NOW)


def test_a_next_charter_is_pinned_only_if_it_continues_and_is_adopted(north: Federation) -> None:
    folder = north.join()
    before = files(folder)
    second = {"version": 2, "previous": folder.charter.digest}
    for reason, bad in {
        "1 more of its own officers": north.charter("alba", "brno", **second),
        "names another version 1": north.charter(version=2, previous="0" * 64),
        "does not follow version 1": north.charter(version=3, previous=folder.charter.digest),
        "another identity key": north.charter(sites=_without_key(north), **second),
    }.items():
        with pytest.raises(VerificationError, match=reason):
            joining.add_charter(folder, bad.encode())
        assert files(folder) == before
    added = joining.add_charter(folder, north.charter(revoked=[format(77, "x")], **second).encode())
    assert (folder.charter.version, folder.charter.digest) == (2, added.digest)
    assert folder.log().entries()[-1].record.content["version"] == 2
    with pytest.raises(VerificationError, match="was revoked"):
        folder.tls(NOW)
    (folder.path / "charter-1.json").rename(folder.path / "gone")
    with pytest.raises(ConfigError, match="lacks a version"):
        _ = folder.charter


def _without_key(north: Federation) -> list[dict[str, object]]:
    sites = from_body(dict(north.charter().charter.body)).body["sites"]
    return [{**one, "identity": example.spelt("new")} if one["id"] == "alba" else one for one in sites]


def test_a_charter_that_was_put_there_by_hand_is_refused(north: Federation) -> None:
    folder = north.join()
    forged = north.charter("alba", "brno", version=2, previous=folder.charter.digest)
    write_new(folder.path / "charter-2.json", forged.encode())
    with pytest.raises(VerificationError, match="not adopted"):
        _ = folder.charter


def test_new_assets_are_declared_and_known_ones_keep_their_budget(north: Federation) -> None:
    folder = north.join()
    assert joining.declare_assets(folder, patients=False) == ()
    both = {
        "hearts": {"purposes": ["training"], "epsilon": "3", "delta": "0.001"},
        "lungs": {"purposes": ["training"], "epsilon": "1", "delta": "0.001"},
    }
    second = north.charter(version=2, previous=folder.charter.digest, assets=both)
    joining.add_charter(folder, second.encode())
    with (folder.path / "site.toml").open("a") as file:
        file.write(SITE_TOML[SITE_TOML.index("[asset") :].replace("hearts", "lungs"))
    asked = (folder.path / "site.toml").read_text()
    (folder.path / "site.toml").write_text(asked + 'claims = ["record", "record-distributed"]\n')
    with pytest.raises(ConfigError, match="asset lungs: no run is priced under record and record-distributed"):
        joining.declare_assets(folder, patients=False)
    (folder.path / "site.toml").write_text(asked)
    with pytest.raises(ConfigError, match="protects a patient, and claims has 'record'"):
        joining.declare_assets(folder, patients=True)
    assert joining.declare_assets(folder, patients=False) == ("lungs",)
    with folder.ledger().reading() as books:
        budgets = {name: asset.budgets["record"] for name, asset in books.assets.items()}
    assert [getattr(budgets[name], "epsilon", None) for name in ("hearts", "lungs")] == [2, 1]


def test_one_process_at_a_time(north: Federation) -> None:
    folder = north.folders["alba"]
    with folder.locked(), pytest.raises(ConfigError, match="another process"), SiteFolder(folder.path).locked():
        pass
    with folder.locked():
        pass


def test_what_serves_others_runs_beside_the_agent(north: Federation) -> None:
    folder = north.folders["alba"]
    with folder.locked(), folder.locked("stage.lock"):
        with pytest.raises(ConfigError, match="another process"), folder.locked("stage.lock"):
            pass
        with folder.locked("serve.lock"):
            pass


def test_the_emergency_stop_is_seen(north: Federation) -> None:
    folder = north.folders["alba"]
    assert not folder.paused
    for paused in (True, True, False, False):
        folder.pause(paused=paused)
        assert SiteFolder(folder.path).paused is paused
    (folder.path / "paused").symlink_to("nowhere")
    assert folder.paused


def test_a_folder_holds_one_party(north: Federation, tmp_path: Path) -> None:
    folder = north.folders["alba"]
    (folder.path / "enrol-brno.json").write_bytes((north.path / "brno" / "enrol-brno.json").read_bytes())
    (folder.path / "enrol-brno.json").chmod(0o600)
    with pytest.raises(ConfigError, match="different parties"):
        SiteFolder(folder.path)
    (tmp_path / "empty").mkdir(0o700)
    with pytest.raises(ConfigError, match="no party's folder"):
        SiteFolder(tmp_path / "empty")
