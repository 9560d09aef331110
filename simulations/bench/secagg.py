"""``python -m simulations.bench.secagg``: secure aggregation beside Flower's SecAgg+, and what an attempt costs.

Speed is a ratio of CPU time of this process, both sides in one run and in turns, medians; nothing here passes or fails.

Symbols: ``n`` sites, ``t`` threshold, ``d`` parameters, ``k`` neighbours of a site.
"""

import argparse
import json
import os
import platform
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from privacy.errors import LocalProtocolError
from privacy.keys.agreement import Secret
from privacy.keys.signing import SigningKey
from privacy.secagg import opening
from privacy.secagg.bindings import Bindings, pair_sign, y_digests
from privacy.secagg.context import Roster
from privacy.secagg.masks import PIECE_BYTES, Mask, apply_streams
from privacy.secagg.ring import aligned, to_ring
from privacy.secagg.shares import combine, split
from privacy.secagg.suite import Keystream, RealSuite
from privacy.secagg.wire import Advert
from simulations.bench import flower as peer
from simulations.bench.attempt import DIGEST, KEYSTREAM, SUITE, Attempt, agreed, rounded, site_ids
from simulations.bench.flower import MODULUS, Graph

SCHEMA = "collegium/bench-secagg/v1"
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Sizes:
    """What is run. ``stages``: d, k, turns, bar. ``shares``: n, t, turns. ``recoveries``: n, k, turns, one in."""

    stages: tuple[tuple[int, int, int, float], ...]
    shares: tuple[tuple[int, int, int], ...]
    recoveries: tuple[tuple[int, int, int, int], ...]
    d: int
    n_upload: int
    n_attempt: int
    keystream_turns: int


FULL = Sizes(
    stages=((10**6, 20, 9, 5.0), (10**6, 99, 5, 5.5), (10**7, 20, 3, 7.0)),
    shares=((41, 21, 7), (100, 51, 3)),
    recoveries=((100, 20, 5, 1), (100, 99, 3, 10)),
    d=10**6,
    n_upload=20,
    n_attempt=30,
    keystream_turns=31,
)
QUICK = Sizes(
    stages=((5_000, 4, 2, 5.0),),
    shares=((7, 4, 2),),
    recoveries=((10, 4, 1, 1), (10, 9, 1, 2)),
    d=5_000,
    n_upload=4,
    n_attempt=6,
    keystream_turns=3,
)


@dataclass(frozen=True)
class Row:
    """One figure: a value, the bar that it is held against, how far single turns lay from it, and its parts."""

    what: str
    found: float
    unit: str
    bar: float
    at_least: bool
    low: float
    high: float
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side of the bar."""
        return self.found >= self.bar if self.at_least else self.found <= self.bar


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints a table, writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench") / "bench-secagg.json")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, says nothing about speed")
    chosen = parser.parse_args(arguments)
    load = [os.getloadavg()]
    rows = measure(QUICK if chosen.quick else FULL)
    load.append(os.getloadavg())
    names = ("flwr", "numpy", "cryptography")
    machine = {"processors": os.cpu_count(), "python": platform.python_version(), "load": load, "keystream": KEYSTREAM}
    listed = [{**asdict(row), "holds": None if chosen.quick else row.holds} for row in rows]
    machine |= {name: version(name) for name in names}
    result = {"schema": SCHEMA, "quick": chosen.quick, "machine": machine, "rows": listed}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(rows, quick=chosen.quick)
    sys.stdout.write(f"written: {chosen.out}\n")


def measure(sizes: Sizes) -> list[Row]:
    """Runs everything, one thing at a time."""
    rows: list[Row] = []
    for row in _measures(sizes):
        sys.stderr.write(f"{row.what}: {row.found:.3f} {row.unit}\n")
        rows.append(row)
    return rows


def _measures(sizes: Sizes) -> Iterator[Row]:
    for d, k, turns, bar in sizes.stages:
        yield client_stage(d, k, turns, bar)
    yield keystream_share(sizes.d, 20, sizes.keystream_turns)
    for n, t, turns in sizes.shares:
        yield sharing(n, t, turns)
    for n, k, turns, one_in in sizes.recoveries:
        yield recovery(Graph.ring(n, k, one_in), sizes.d, turns)
    yield upload(sizes.n_upload, sizes.d)
    yield from attempt_cost(sizes.n_attempt, sizes.d)
    yield server_memory(sizes.n_attempt, sizes.d)


def in_turns(turns: int, **jobs: Callable[[], object]) -> Times:
    """Returns CPU seconds of each job by turn; in a turn every job runs once, in this order."""
    found: Times = {name: [] for name in jobs}
    for _ in range(turns):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            found[name].append(time.process_time() - start)
    return found


def ratio_row(what: str, above: Sequence[float], below: Sequence[float], bar: float, **detail: Any) -> Row:
    """Returns the ratio of the medians; low and high are those of single turns."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return Row(what, _ratio(above, below), "x", bar, True, min(ratios), max(ratios), {"turns": len(ratios), **detail})


def _ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(above) / statistics.median(below)


def _medians(times: Times) -> dict[str, float]:
    return {f"{name}_s": statistics.median(each) for name, each in times.items() if name != "forget"}


def _added(times: Times, *names: str) -> list[float]:
    return [sum(parts) for parts in zip(*(times[name] for name in names), strict=True)]


def client_stage(d: int, k: int, turns: int, bar: float) -> Row:
    """Clip, stochastic rounding on coins from AES-CTR, ``k + 1`` masks, bytes; on ours hash and signature too.

    Beside it, in the detail: the ratio with our rounding on both sides, which leaves the masks to decide; with
    Flower's own coins; with key agreement. Messages are left out on both sides.
    """
    update = np.random.default_rng(1).standard_normal(d, dtype=np.float32)
    quantised, units = peer.rounded(update), rounded(update)
    seeds = [secrets.token_bytes(32) for _ in range(k + 1)]
    times = in_turns(
        turns,
        flower_rounding=lambda: peer.rounded(update),
        ours_rounding=lambda: rounded(update),
        flower_masks=lambda: peer.masked(quantised, seeds),
        ours_masks=lambda: _ours_masked(units, seeds),
        flower_rounding_shipped=lambda: peer.rounded_as_shipped(update),
        flower_agreement=peer.agree(k),
        ours_agreement=_agree(k),
    )
    alike = _added(times, "flower_rounding", "flower_masks")
    ours = _added(times, "ours_rounding", "ours_masks")
    detail = _medians(times) | {
        "ratio_our_rounding_on_both": _ratio(_added(times, "ours_rounding", "flower_masks"), ours),
        "ratio_flowers_own_coins": _ratio(_added(times, "flower_rounding_shipped", "flower_masks"), ours),
        "ratio_with_key_agreement": _ratio(
            _added(times, "flower_rounding", "flower_masks", "flower_agreement"),
            _added(times, "ours_rounding", "ours_masks", "ours_agreement"),
        ),
    }
    return ratio_row(f"client stage, {d:.0e}, k = {k}", alike, ours, bar, **detail)


def _ours_masked(units: NDArray[np.int64], keys: Sequence[bytes]) -> bytes:
    """What a site does between KDF and message: masks, bytes, hash, signature (§3.5)."""
    bindings = Bindings(DIGEST, {})
    vector = to_ring(units, 32)
    masks = [Mask(key, 1 if place % 2 == 0 else -1, (0,)) for place, key in enumerate(keys)]
    apply_streams({0: vector}, masks, 32, SUITE.stream)
    y = {0: vector.tobytes()}
    return SUITE.sign(SigningKey(DIGEST), bindings.msk_message("site", y_digests(y)))


def _agree(k: int) -> Callable[[], None]:
    own, sites = Secret(secrets.token_bytes(32)), site_ids(2)
    bindings = Bindings(DIGEST, dict.fromkeys(sites, Advert(b"", SUITE.public(own), b"")))

    def job() -> None:
        for _ in range(k):
            bindings.pair_mask(SUITE, own, *sites, regions=(0,), sign=1)

    return job


def keystream_share(d: int, k: int, turns: int) -> Row:
    """Speed of ``k + 1`` masks on a vector, as a share of the speed at which the same keystreams are only made.

    Held against the bar is the share of the keystream in use, the faster one; named beside it is that of the other.
    """
    vector = to_ring(np.zeros(d, dtype=np.int64), 32)
    masks = [Mask(secrets.token_bytes(32), 1, (0,)) for _ in range(k + 1)]
    zeros, room = memoryview(bytes(PIECE_BYTES)), aligned(PIECE_BYTES // 4 + 4, 32).data.cast("B")

    def only(suite: RealSuite) -> None:
        for mask in masks:
            stream = suite.stream(mask.key)
            for start in range(0, vector.nbytes, PIECE_BYTES):
                stream.update_into(zeros[: vector.nbytes - start], room)

    other: Keystream = "ctr" if KEYSTREAM == "gcm" else "gcm"
    times = in_turns(
        turns,
        in_use=lambda: only(SUITE),
        other=lambda: only(RealSuite(other)),
        masks=lambda: apply_streams({0: vector}, masks, 32, SUITE.stream),
    )
    speed = (k + 1) * vector.nbytes / 1e9
    detail = {f"{name}_gb_per_s": speed / statistics.median(each) for name, each in times.items()}
    of_other = _ratio(times["other"], times["masks"])
    what = f"masks, share of keystream, {d:.0e}, k = {k}, {KEYSTREAM} in use (of {other}: {of_other:.2f})"
    return replace(ratio_row(what, times["in_use"], times["masks"], 0.7, **detail), unit="share")


def sharing(n: int, t: int, turns: int) -> Row:
    """A site's two secrets shared among ``n`` and put together from ``t``: seed and private key, each side's own.

    Flower's key is a PEM of 306 bytes, ours has 32; the ratio for the seed, 32 bytes on both sides, is in the detail.
    """
    seed, key = secrets.token_bytes(32), peer.private_key()

    def ours() -> None:
        shares = split(seed, t=t, places=range(n), entropy=secrets.token_bytes)
        if combine(dict(list(shares.items())[-t:]), t) != seed:
            raise LocalProtocolError("our shares do not give the secret")

    times = in_turns(
        turns,
        flower_seed=lambda: peer.share(seed, n, t),
        flower_key=lambda: peer.share(key, n, t),
        forget=_forget_weights,
        ours_seed=ours,
        ours_key=ours,
    )
    above, below = _added(times, "flower_seed", "flower_key"), _added(times, "ours_seed", "ours_key")
    detail = _medians(times) | {"ratio_seed": _ratio(times["flower_seed"], times["ours_seed"])}
    return ratio_row(f"shares, n = {n}, t = {t}", above, below, 300, **detail)


def _forget_weights() -> None:
    """Pushes the Lagrange weights of the turn before out of their cache: every turn begins cold."""
    for place in range(600):
        combine({place: bytes(33)}, 1)


def recovery(graph: Graph, d: int, turns: int) -> Row:
    """The server takes the masks off: shares to secrets, secrets to masks; both sides give the same, exact sum."""
    total = np.random.default_rng(2).integers(0, MODULUS, d)
    flower, ours = peer.recovery(graph, total), _ours_recovery(graph, total)
    for name, job in (("Flower's", flower), ("our", ours)):
        if not np.array_equal(job(), total):
            raise LocalProtocolError(f"{name} recovery gives another sum")
    times = in_turns(turns, flower=flower, forget=_forget_weights, ours=ours)
    n, k = len(graph.neighbours), len(graph.neighbours[0]) - 1
    what = f"recovery, n = {n}, {len(graph.dropped)} dropped, {d:.0e}, k = {k}"
    detail = {"t": graph.t, "opened": len(graph.opened), "exact": True, **_medians(times)}
    return ratio_row(what, times["flower"], times["ours"], 15, **detail)


def _ours_recovery(graph: Graph, total: NDArray[np.int64]) -> Callable[[], NDArray[Any]]:
    """What the coordinator does when the last UNM is there, share commitments included (§4.4, §4.5)."""
    cohort = site_ids(len(graph.neighbours))
    b, s = ([Secret(secrets.token_bytes(32)) for _ in cohort] for _ in range(2))
    context = agreed(cohort, Roster(1, {}), len(total), 32)
    bindings = Bindings(context.digest, {site: Advert(b"", SUITE.public(s[i]), b"") for i, site in enumerate(cohort)})
    view = opening.View(context, bindings, (0,), SUITE)
    dealt = {}
    for i in graph.opened:
        secret = s[i] if i in graph.dropped else b[i]
        shares = split(secret.reveal(), t=graph.t, places=graph.neighbours[i], entropy=secrets.token_bytes)
        dealt[i] = {u: shares[u] for u in graph.alive(i)}
    commit = {(i, u): _commitment(bindings, cohort, i, u, share) for i in dealt for u, share in dealt[i].items()}
    bcoms = {i: bindings.seed_commitment(cohort[i], b[i].reveal()) for i in graph.opened}
    masks = [bindings.self_mask(SUITE, b[i], cohort[i], (0,), 1) for i in graph.opened if i not in graph.dropped]
    for i, u in graph.pairs():
        if u not in graph.dropped:
            me, other = cohort[u], cohort[i]
            sign = pair_sign(me, other)
            masks.append(bindings.pair_mask(SUITE, s[u], me, other, regions=(0,), sign=sign))
    masked = to_ring(total, 32)
    apply_streams({0: masked}, masks, 32, SUITE.stream)

    def recover() -> NDArray[Any]:
        off: list[Mask] = []
        for i, shares in dealt.items():
            if any(_commitment(bindings, cohort, i, u, share) != commit[i, u] for u, share in shares.items()):
                raise LocalProtocolError("a share does not match its commitment")
            opened = Secret(combine(shares, graph.t))
            if i in graph.dropped:
                off += opening.of_private_key(view, cohort[i], opened, [cohort[u] for u in graph.alive(i)])
            else:
                off.append(opening.of_seed(view, cohort[i], opened, bcoms[i]))
        vector = masked.copy()
        apply_streams({0: vector}, off, 32, SUITE.stream)
        return vector.astype(np.int64)

    return recover


def _commitment(bindings: Bindings, cohort: Sequence[str], dealer: int, recipient: int, share: bytes) -> bytes:
    return bindings.share_commitment("bshare", cohort[dealer], cohort[recipient], share)


def upload(n: int, d: int) -> Row:
    """Bytes that one site sends in a whole attempt, 32-bit ring, a parameter; the most of any site."""
    sent = [size / d for size in Attempt(n, d, 32).run().sent.values()]
    found = max(sent)
    return Row(f"upload, n = {n}, {d:.0e}, 32-bit ring", found, "bytes/parameter", 4.02, False, min(sent), found)


def attempt_cost(n: int, d: int) -> list[Row]:
    """CPU time of a site, rounding to UNM, and of the server, START to sum; a sixth drop out after their shares."""
    done = Attempt(n, d, 64, lost=n // 6).run()
    survived = [done.client_cpu[site] for site in done.finished.survivors]
    what = f"n = {n}, {d:.0e}, 64-bit ring, {n // 6} dropped"
    detail = {"survivors": len(survived), "exact": True}
    return [
        Row(f"client, {what}", statistics.median(survived), "s", 0.5, False, min(survived), max(survived), detail),
        Row(f"server, {what}", done.server_cpu, "s", 2.5, False, done.server_cpu, done.server_cpu, detail),
    ]


def server_memory(n: int, d: int) -> Row:
    """Most memory of the server with ``n`` sites, as a multiple of that with a third of them."""
    peaks = {sites: Attempt(sites, d, 64, traced=True).run().server_peak for sites in (max(n // 3, 3), n)}
    few, many = peaks.values()
    detail = {"peak_in_vectors": {str(sites): peak / (8 * d) for sites, peak in peaks.items()}}
    found = many / few
    return Row(f"server memory, n = {n} to {min(peaks)}, {d:.0e}", found, "x", 1.1, False, found, found, detail)


def show(rows: Sequence[Row], *, quick: bool) -> None:
    """Prints the table; tiny sizes are held against no bar."""
    table = Table("what", "found", "turns from - to", "bar", "holds", title="secure aggregation", title_justify="left")
    for row in rows:
        bar = f"{'>=' if row.at_least else '<='} {row.bar:g}"
        holds = "-" if quick else ("yes" if row.holds else "no")
        table.add_row(row.what, f"{row.found:.4g} {row.unit}", f"{row.low:.3g} - {row.high:.3g}", bar, holds)
    Console().print(table)


if __name__ == "__main__":
    main()
