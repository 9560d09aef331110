"""What ``site.toml`` and ``server.toml`` may say; a misspelt key is an error, never a default."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from privacy.dp.filters import FilterKind
from privacy.errors import ConfigError
from privacy.store.site_settings import read_server_settings, read_site_settings
from tests.privacy.store.joined import SITE_TOML

HOME = Path("/home/north")
FULL = """
server = "https://[::1]:9443/"
policy = "mine.cedar"
study = "ours.toml"

[asset.hearts]
path = "/data/hearts.csv"
columns = { age = "AGE", ill = "DIAGNOSIS" }
patient = "PATIENT"
opt_out = "opted-out.txt"
purposes = ["training", "audit"]
sensitivity = "special-category"
incomplete = "drop"
test = 0.2
seed = 7
rows = 500
claims = ["patient", "site-distributed"]
filter = "renyi"
epsilon = 1.5
"""


def test_everything_that_can_be_said() -> None:
    settings = read_site_settings(FULL, HOME)
    (asset,) = settings.assets.values()
    assert settings.address == ("::1", 9443)
    assert (settings.policy, settings.study, settings.timezone.key) == ("mine.cedar", "ours.toml", "UTC")
    assert (asset.name, asset.path, asset.opt_out) == ("hearts", Path("/data/hearts.csv"), HOME / "opted-out.txt")
    assert dict(asset.columns) == {"age": "AGE", "ill": "DIAGNOSIS"}
    assert (asset.patient, asset.purposes) == ("PATIENT", ("training", "audit"))
    assert (asset.incomplete, asset.test, asset.seed, asset.rows) == ("drop", 0.2, 7, 500)
    assert (asset.claims, asset.filter) == (("patient", "site-distributed"), FilterKind.RENYI)
    assert asset.epsilon == Decimal("1.5")


def test_the_example_of_the_how_to_can_be_read() -> None:
    page = (Path(__file__).parents[3] / "docs/how-to-site.md").read_text()
    (asset,) = read_site_settings(page.split("```toml\n")[1].split("```")[0], HOME).assets.values()
    assert (asset.name, dict(asset.columns)) == ("heart-disease", {"age": "AGE_YEARS", "num": "DIAGNOSIS"})
    listed = page.split("## Joining", maxsplit=1)[0]
    for key in (*vars(asset), *vars(read_site_settings(FULL, HOME))):
        assert f"`{key}`" in listed or key in {"name", "assets"}


def test_defaults() -> None:
    (asset,) = read_site_settings(SITE_TOML, HOME).assets.values()
    assert (asset.path, asset.opt_out, asset.patient, dict(asset.columns)) == (HOME / "table.csv", None, "", {})
    assert (asset.test, asset.seed, asset.rows, asset.incomplete) == (0.34, 43, 0, "refuse")
    assert (asset.claims, asset.filter, asset.epsilon) == (("record",), None, None)
    server = read_server_settings('listen = "[::]:0"')
    assert (server.listen, server.policy, server.study) == (("::", 0), "server.cedar", "study.toml")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("sensitivity", "sensitivty", "asset.hearts.sensitivity: is missing"),
        ("policy =", "polici =", "polici: unknown key"),
        ("opt_out", "optout", "asset.hearts.optout: unknown key"),
        ("https://[::1]:9443/", "http://x:9443", "is not an address"),
        ("https://[::1]:9443/", "https://x", "is not an address"),
        ("https://[::1]:9443/", "https://me@x:1", "is not an address"),
        ("https://[::1]:9443/", "https://x:99999", "is not an address"),
        ('"mine.cedar"', '"../mine.cedar"', "not the name of a file in this folder"),
        ('"mine.cedar"', '"sub/mine.cedar"', "not the name of a file in this folder"),
        ('"ours.toml"', '".ours"', "not the name of a file in this folder"),
        ("test = 0.2", "test = 1.0", "above 0 and below 1"),
        ("test = 0.2", "test = true", "must be a number"),
        ("test = 0.2", "test = nan", "must be a finite number"),
        ("test = 0.2", "test = 1e-400", "above 0 and below 1"),
        ("seed = 7", "seed = 4294967296", "whole number from 0"),
        ("seed = 7", "seed = 7.0", "whole number from 0"),
        ('"patient",', '"site",', "'site' is not one of"),
        ('"renyi"', '"zcdp"', "'zcdp' is not one of"),
        ("epsilon = 1.5", "epsilon = inf", "must be a finite number"),
        ("epsilon = 1.5", "epsilon = -1", "above 0"),
        ('"DIAGNOSIS"', '"AGE"', "'AGE' is there twice"),
        ('["training", "audit"]', "[]", "at least one entry"),
        ('["training", "audit"]', '["training", "training"]', "different texts"),
        ('["training", "audit"]', '["training", ["audit"]]', "different texts"),
        ('server = "https://[::1]:9443/"', "server = 3", "must be text"),
        ("[asset.hearts]", "[asset]", "must be a table"),
        ("test = 0.2", "test = ", "not valid TOML"),
        ('policy = "mine.cedar"', 'timezone = "Mars/Base"', "'Mars/Base' is unknown here"),
        ('policy = "mine.cedar"', 'timezone = "../../etc/passwd"', "is unknown here"),
    ],
)
def test_what_is_refused(old: str, new: str, reason: str) -> None:
    assert old in FULL
    with pytest.raises(ConfigError, match=reason) as refused:
        read_site_settings(FULL.replace(old, new), HOME)
    assert re.match(r"site\.toml: ", str(refused.value))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("listen", ["9443", "host", "host:x", "host:1/path", ""])
def test_the_coordinator_listens_somewhere(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.toml: listen"):
        read_server_settings(f'listen = "{listen}"')


def test_a_site_without_data_has_nothing_to_say() -> None:
    with pytest.raises(ConfigError, match="asset: lists no data"):
        read_site_settings('server = "https://x:1"', HOME)


CHANNEL = """
[channel]
listen = "0.0.0.0:9453"

[channel.peers]
brno = "brno.example:9453"
edge-3 = "[::1]:1"
"""


def test_where_agents_talk_to_each_other() -> None:
    channel = read_site_settings(SITE_TOML + CHANNEL, HOME).channel
    assert channel is not None
    assert channel.listen == "0.0.0.0:9453"
    assert dict(channel.peers) == {"brno": "brno.example:9453", "edge-3": "[::1]:1"}
    assert read_site_settings(SITE_TOML, HOME).channel is None
    silent = read_site_settings(SITE_TOML + "[channel]\n", HOME).channel
    assert silent is not None
    assert (silent.listen, dict(silent.peers)) == ("", {})
    anywhere = read_site_settings(SITE_TOML + '[channel]\nlisten = "127.0.0.1:0"\n', HOME).channel
    assert anywhere is not None
    assert anywhere.listen == "127.0.0.1:0"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("listen =", "listn =", "channel.listn: unknown key"),
        ("[channel.peers]", "[channel.peer]", "channel.peer: unknown key"),
        ("0.0.0.0:9453", "example", "channel.listen: 'example' is not host:port"),
        ("0.0.0.0:9453", "http://x:1", "channel.listen: 'http://x:1' is not host:port"),
        ("brno.example:9453", "brno.example", "channel.peers.brno: 'brno.example' is not host:port"),
        ("brno.example:9453", "brno.example:0", "channel.peers.brno: 'brno.example:0' is not host:port"),
        ("brno.example:9453", "me@brno.example:1", "is not host:port"),
        ("brno.example:9453", "brno.example:1/x", "is not host:port"),
        ('"brno.example:9453"', "9453", "channel.peers.brno: must be text"),
        ("[channel]", "[[channel]]", "channel|not valid TOML"),
    ],
)
def test_addresses_of_agents_are_checked(old: str, new: str, reason: str) -> None:
    assert old in CHANNEL
    with pytest.raises(ConfigError, match=reason):
        read_site_settings(SITE_TOML + CHANNEL.replace(old, new), HOME)
