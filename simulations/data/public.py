"""What the public data sets have in common: where they are looked for, how they are fetched, cells as numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from privacy.errors import ConfigError
from simulations.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

_DOWNLOAD_TIMEOUT = 10  # seconds without an answer


def in_data_home(scenario: Scenario, data_home: Path | None) -> Path | None:
    """Returns the data home if it has the scenario's folder; then every file must be there and intact."""
    folder = Path(scenario.sites[0].file).parent
    return data_home if data_home is not None and (data_home / folder).is_dir() else None


def fetch(folder: str, name: str, *, digest: str, instead: str) -> Path:
    """Fetches one file from its owner into the user's cache, once, and checks its digest.

    Args:
      folder: Address of the owner's folder, with a slash at the end.
      name: Name of the file, there and in the cache.
      digest: What the file must be, such as ``"sha256:..."``.
      instead: What the person can do who has no network.

    Raises: ConfigError: The file cannot be had, or is another one.
    """
    import pooch  # type: ignore[import-untyped]  # noqa: PLC0415 - brings requests, only where something is fetched

    pooch.get_logger().setLevel("ERROR")
    try:
        return Path(
            pooch.retrieve(
                f"{folder}{name}",
                known_hash=digest,
                fname=name,
                path=pooch.os_cache("collegium"),
                downloader=pooch.HTTPDownloader(timeout=_DOWNLOAD_TIMEOUT),
            )
        )
    except ValueError:
        raise ConfigError(f"{name}: wrong checksum", hint=f"The owner's file has changed: {folder}") from None
    except OSError:
        # requests' errors are OSErrors; so is a cache folder that cannot be written.
        raise ConfigError(
            f"{name} cannot be fetched from its owner: no network, or no room in {pooch.os_cache('collegium')}",
            hint=instead,
        ) from None


def numbers(table: "pd.DataFrame", columns: Sequence[str]) -> "pd.DataFrame":
    """Returns these columns as numbers; whatever is none becomes a blank."""
    import pandas as pd  # noqa: PLC0415 - a heavy import, only where data is read

    return pd.DataFrame({name: pd.to_numeric(table[name], errors="coerce") for name in columns})
