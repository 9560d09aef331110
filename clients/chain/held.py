"""What a holder keeps of its piece from round to round of a run, in memory and in a folder.

In a round every site trains against a copy of the piece that starts where the round before ended: at the mean of the
copies that came to their end then, weighted as the sites' own updates are (SplitFed version 1: Thapa et al., AAAI
2022, section 4). The mean is taken as the sites' masked sum is, on its grid and in float64, so that where everybody
answers a cut changes what is learnt by rounding alone. Another attempt of a round starts where the first one did, and
its copies replace the first one's. The holder is not told which sums were opened: of fewer copies than a sum takes, it
knows that none was, and the piece stands still as the ends do.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from privacy.errors import ConfigError, LocalProtocolError
from privacy.secagg.ring import quantise
from privacy.store.run_folder import RunFolder, read_file
from strategies.secure_sum import FRACTION_BITS, PLAIN

State = Mapping[str, npt.NDArray[np.generic]]
"""Of a piece: its state dict, by the model's own names."""

HELD_FOLDER = "held"
_MOST_BYTES = 2**32
_FILE = re.compile(r"([1-9][0-9]*)(?:-([1-9][0-9]*)-([1-9][0-9]*)-([a-z0-9._-]+))?\.safetensors")


class Copy(NamedTuple):
    """A site's copy of the piece at the end of an attempt; ``weight`` is public."""

    attempt: int
    weight: int
    site: str
    state: State


def moved(start: State, copies: Sequence[Copy]) -> State:
    """Returns where a piece is after a round: moved by the weighted mean of at least one copy's updates.

    Args:
      start: Where the copies began, real numbers in float64.
      copies: Each as `Held.finish` let it in.

    Returns: Real numbers in float64; of whole numbers, the first site's.
    """
    ordered = sorted(copies, key=lambda copy: copy.site)
    total, found = sum(copy.weight for copy in ordered), dict[str, npt.NDArray[np.generic]]()
    for name, array in start.items():
        if np.issubdtype(array.dtype, np.floating):
            units = sum(copy.weight * _units(array, copy.state[name]) for copy in ordered)
            mean = np.ldexp(np.asarray(units).astype(np.float64), -FRACTION_BITS) / total
            found[name] = np.asarray(array, np.float64) + mean.reshape(array.shape)
        else:
            found[name] = ordered[0].state[name]
    return found


def _units(start: npt.NDArray[np.generic], end: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """Returns an update in units of the grid. Raises: SensitivityError: It is not finite, or no honest one."""
    with np.errstate(all="ignore"):  # what is no number is refused
        update = (np.asarray(end, np.float32) - np.asarray(start, np.float32)).astype(np.float64).reshape(-1)
    return quantise(update, fraction_bits=FRACTION_BITS, bound=PLAIN.largest, entropy=_no_coins)


def _no_coins(size: int) -> bytes:
    raise LocalProtocolError(f"rounding to the nearest unit asked for {size} random bytes")


def _wide(state: State) -> State:
    return {name: each.astype(np.float64) if np.issubdtype(each.dtype, np.floating) else each for name, each in
            state.items()}  # fmt: skip


def _narrow(state: State) -> State:
    return {name: each.astype(np.float32) if np.issubdtype(each.dtype, np.floating) else each for name, each in
            state.items()}  # fmt: skip


@dataclass
class Held:
    """The piece of one run; whoever calls does so from one thread at a time.

    Attributes:
      state: After round ``over``, real numbers in float64; before the first one, the initial parameters.
      over: The last round that has been averaged, or passed over.
      folder: Where all of this is kept durably; ``None``: nowhere.
      fewest: Copies of a round's last attempt below which the round changes nothing.
    """

    state: State
    folder: RunFolder | None = None
    over: int = 0
    fewest: int = 1
    _copies: dict[int, dict[str, Copy]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.state = _wide(self.state)

    @classmethod
    def of_folder(cls, path: Path, initial: State, *, fewest: int = 1) -> "Held":
        """Goes on with what the folder has; it need not exist.

        Raises: ConfigError: It cannot be read, or is of another piece than the initial parameters.
        """
        held = cls(initial, RunFolder(path), fewest=fewest)
        found = [match for match in map(_FILE.fullmatch, _names(path)) if match]
        held.over = max((int(match[1]) for match in found if not match[4]), default=0)
        if held.over:
            held.state = _read(path / f"{held.over}.safetensors", initial)
        for match in found:
            if match[4] and int(match[1]) > held.over:
                copy = Copy(int(match[2]), int(match[3]), match[4], _read(path / match[0], initial))
                held._copies.setdefault(int(match[1]), {})[copy.site] = copy
        return held

    def begin(self, number: int) -> State:
        """Returns where copies start in a round, from 1; rounds before it are over from now on.

        Raises: ConfigError: The mean cannot be kept.
        """
        before = [each for each in self._copies if each < number]
        if before:
            newest = max(before)
            state = self._after(newest)
            self._keep(f"{newest}.safetensors", state)
            self.state, self.over = state, newest
            self._copies = {each: copies for each, copies in self._copies.items() if each >= number}
            self._tidy()
        return _narrow(self.state)

    def finish(self, number: int, copy: Copy) -> None:
        """Takes a site's copy of a round; of a round that is over, or of an attempt before its last one, nothing.

        Raises:
          ConfigError: It cannot be kept.
          SensitivityError: It went where no honest update goes: in the mean it would spoil everybody's.
        """
        copies = self._copies.get(number, {})
        if number <= self.over or (copy.site in copies and copies[copy.site].attempt > copy.attempt):
            return
        for name, array in self.state.items():
            if np.issubdtype(array.dtype, np.floating):
                _units(array, copy.state[name])
        self._keep(f"{number}-{copy.attempt}-{copy.weight}-{copy.site}.safetensors", copy.state)
        self._copies[number] = {**copies, copy.site: copy}

    def latest(self) -> tuple[int, State]:
        """Returns the last round that any site came to the end of, and the piece after it."""
        newest = max(self._copies, default=0)
        return (newest, _narrow(self._after(newest))) if newest else (self.over, _narrow(self.state))

    def _after(self, number: int) -> State:
        """Returns where the piece is after a round, by the last attempt: who was not in it is in no sum either."""
        copies = self._copies[number].values()
        last = max(copy.attempt for copy in copies)
        counted = [copy for copy in copies if copy.attempt == last]
        return moved(self.state, counted) if len(counted) >= self.fewest else self.state

    def _keep(self, name: str, state: State) -> None:
        if self.folder is None:
            return
        path = self.folder.path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{path} cannot be made: {error.strerror or error}") from error
        arrays = {key: np.array(array, order="C") for key, array in state.items()}
        self.folder.write(name, safetensors.numpy.save(arrays))

    def _tidy(self) -> None:
        """Removes what the last mean took the place of; it is durable by now."""
        if self.folder is None:
            return
        for match in filter(None, map(_FILE.fullmatch, _names(self.folder.path))):
            if int(match[1]) < self.over or (int(match[1]) == self.over and match[4]):
                (self.folder.path / match[0]).unlink(missing_ok=True)


def _names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir()) if path.is_dir() else []


def _read(path: Path, like: State) -> State:
    try:
        arrays: State = safetensors.numpy.load(read_file(path, limit=_MOST_BYTES))
    except safetensors.SafetensorError as error:
        raise ConfigError(f"{path.name} holds no piece of a model: {error}") from None
    if {name: each.shape for name, each in arrays.items()} != {name: each.shape for name, each in like.items()}:
        raise ConfigError(f"{path.name} is of another piece of a model")
    return arrays
