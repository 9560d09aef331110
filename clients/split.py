"""Which of a site's records train and which test: a function of labels, fraction and seed, fixed before training.

Neighbouring data sets are *training sets after the split*: here a removed record could move others between the two
parts. That is harmless in a simulation on public data; at a real site the rows kept back score models there and nothing
else, and a patient who leaves by the opt-out list leaves before the split.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privacy.errors import ConfigError

_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Public settings of the split; the defaults are FLamby's for Heart Disease.

    Attributes:
      test: Fraction of the records that test, in (0, 1).
      seed: Orders the records before the cut.
    """

    test: float = 0.34
    seed: int = 43


def split_rows(
    labels: npt.NDArray[np.float32],
    split: Split,
    *,
    where: str,
    patients: npt.NDArray[np.int64] | None = None,
) -> tuple[_Rows, _Rows]:
    """Returns the rows to train on and the rows to test on, each in ascending order.

    Stratified by label unless a class has two records or fewer: FLamby's rule and, with its fraction and seed, its
    split; also not if there are more classes than records on one side. Where patients are named, it is they who are
    split, by the highest label of their records: nobody's records are on both sides.

    Args:
      labels: Number of the class, shape ``(n,)``. Secret.
      split: Fraction and seed. Public.
      where: Name of the site, for messages.
      patients: A number per patient, shape ``(n,)``, or ``None``. Secret.

    Raises: ConfigError: Too few records, or patients, for two on either side.
    """
    if patients is None:
        return _cut(labels, split, where, "records")
    of_row = np.unique(patients, return_inverse=True)[1]
    highest = np.zeros(int(of_row.max(initial=-1)) + 1, dtype=np.float32)
    np.maximum.at(highest, of_row, labels)
    trains = np.isin(of_row, _cut(highest, split, where, "patients")[0])
    return np.flatnonzero(trains), np.flatnonzero(~trains)


def _cut(labels: npt.NDArray[np.float32], split: Split, where: str, units: str) -> tuple[_Rows, _Rows]:
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 - a second that only reading data may cost

    # 1 - .34 is .6599999999999999; FLamby counts from the training side, and floor and ceil see the difference.
    train_fraction = round(1.0 - split.test, 9)
    n_train, n_test = math.floor(train_fraction * len(labels)), math.ceil((1.0 - train_fraction) * len(labels))
    if min(n_train, n_test) < 2:
        raise ConfigError(
            f"{where}: {len(labels)} {units} are too few to split with test = {split.test:g}",
            hint=f"At least two {units} are needed on either side.",
        )
    counts = np.unique(labels, return_counts=True)[1]
    by_class = len(counts) > 1 and counts.min() > 2 and len(counts) <= min(n_train, n_test)
    train, test = train_test_split(
        np.arange(len(labels)),
        test_size=1.0 - train_fraction,
        train_size=train_fraction,
        random_state=split.seed,
        shuffle=True,
        stratify=labels if by_class else None,
    )
    return np.sort(train), np.sort(test)


def capped(rows: _Rows, limit: int, split: Split) -> _Rows:
    """Returns at most ``limit`` of the rows, chosen by the split's seed, in ascending order; 0 means all."""
    if limit == 0 or len(rows) <= limit:
        return rows
    return np.sort(np.random.default_rng(split.seed).choice(rows, limit, replace=False))
