"""The files that travel in this package: policies to copy, their tables of tests, and the schemas of requests."""

from importlib import resources

from privacy.errors import ConfigError

NAMES = (
    "hospital.cedar",
    "bank.cedar",
    "demo.cedar",
    "server.cedar",
    "policy-tests-hospital.toml",
    "policy-tests-bank.toml",
    "policy-tests-demo.toml",
    "policy-tests-server.toml",
    "site.cedarschema",
    "channel.cedarschema",
    "server.cedarschema",
    "policy-tests-v1.json",
)


def read(name: str) -> str:
    """Returns the text of one of ``NAMES``.

    Raises: ConfigError: There is no such file; no other path is ever opened.
    """
    if name not in NAMES:
        raise ConfigError(f"no file called {name!r} is shipped", hint=f"There is: {', '.join(NAMES)}.")
    return resources.files("privacy.policy").joinpath(name).read_text(encoding="utf-8")
