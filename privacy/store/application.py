"""Which application is installed here: one digest over its own files, that a charter approves and a site compares.

It says which version of our code runs, and finds a site that runs another one. It does not say what Python or the
libraries are, and whoever may write to the machine's disk can also change what computes it.
"""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from privacy.errors import ConfigError

PACKAGES = ("privacy", "strategies", "server", "clients", "simulations")
SUFFIXES = frozenset({".py", ".toml", ".json", ".cedar", ".cedarschema"})


@cache
def application_digest(packages: tuple[str, ...] = PACKAGES, suffixes: frozenset[str] = SUFFIXES) -> str:
    """Returns SHA-256 of the installed files, hex, as they were when it was first asked in this process.

    What is hashed is what ``sha256sum`` prints for all files with one of the suffixes, in the order of their paths from
    the folder that the packages are in; nothing is imported. So a person can compute it without us.

    Args:
      packages: Top-level packages.
      suffixes: Of the files that count.

    Raises: ConfigError: A package is not installed, or a file cannot be read.
    """
    found = dict(entry for package in packages for entry in _files(package, suffixes))
    listing = "".join(f"{_sha256(path)}  {name}\n" for name, path in sorted(found.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def _files(package: str, suffixes: frozenset[str]) -> list[tuple[str, Path]]:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"{package} is not installed", hint="Install collegium again: pip install collegium.")
    top = Path(spec.origin).parent
    listed = [path for path in top.rglob("*") if path.suffix in suffixes and path.is_file()]
    names = [path.relative_to(top.parent).as_posix() for path in listed]
    for name in names:
        if not name.isprintable() or "\\" in name:  # sha256sum spells it otherwise
            raise ConfigError(f"{name!r} is no name of a file of ours", hint="Find out who put it there.")
    return list(zip(names, listed, strict=True))


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
