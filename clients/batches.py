"""Batch order as a pure function of seed, site and step number: no state to keep, the same in every engine."""

import hashlib

import numpy as np
import numpy.typing as npt

from strategies.task import SiteId


def batch_at(*, seed: int, site: SiteId, step: int, n_records: int, batch: int) -> npt.NDArray[np.int64]:
    """Returns the records of one step; an epoch goes through all of them once, in a fresh order.

    The order depends on ``seed`` and must therefore never be used under differential privacy, where records are
    chosen by the operating system's randomness.

    Args:
      seed: The run's seed. Public.
      site: Whose records.
      step: From 0, counted through all rounds.
      n_records: N >= 1.
      batch: Records per step; 0, or anything not below N, means all of them in their own order.

    Returns: Row numbers, shape ``(b,)``; the last batch of an epoch may be short.
    """
    if batch == 0 or batch >= n_records:
        return np.arange(n_records)
    per_epoch = -(-n_records // batch)
    epoch, place = divmod(step, per_epoch)
    key = hashlib.sha256(f"collegium/batches/v1|{seed}|{site}|{epoch}".encode()).digest()[:16]
    order = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big"))).permutation(n_records)
    return np.asarray(order[place * batch : (place + 1) * batch])
