"""FSA1 once more, from docs/protocol.md alone: one honest attempt, from start to sum, with every value on the way.

It shares no code with `privacy.secagg` and is the oracle for it. It checks nothing that a peer sends; its arithmetic is
plain Python integers: not for use on real data. Where the specification leaves a choice, `Reading:` says which was
taken. Formulas are written as on that page: an id among hashed parts stands for its bytes, a number for
``u64`` of it.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.privacy.secagg.independent_primitives import (
    CborItem,
    Stream,
    aes256_ctr_stream,
    cbor,
    chacha20_poly1305_open,
    chacha20_poly1305_seal,
    ed25519_public,
    ed25519_sign,
    hkdf_sha256,
    x25519,
    x25519_public,
)

FIELD: Final = 2**257 - 93  # §1.6
FIRST_REGION: Final = 0  # Reading: regions are numbered by their place in the context's list, from 0

# --- §1 Encodings ---------------------------------------------------------------------------------


def u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def hashed(label: str, *parts: bytes | str | int) -> bytes:
    """§1.1: H(label, parts…)."""
    text = f"FSA1/{label}\0".encode()
    for part in parts:
        data = part if isinstance(part, bytes) else u64(part) if isinstance(part, int) else part.encode()
        text += u64(len(data)) + data
    return hashlib.sha256(text).digest()


def kdf(ikm: bytes, label: str, info: bytes) -> bytes:
    """§1.2."""
    return hkdf_sha256(ikm, b"FSA1", f"FSA1/{label}\0".encode() + info, 32)


def signature(identity_seed: bytes, label: str, digest: bytes) -> bytes:
    """§1.3."""
    return ed25519_sign(identity_seed, f"FSA1/{label}\0".encode() + digest)


# --- §4.3 Shamir ----------------------------------------------------------------------------------


def polynomial_at(coefficients: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):  # Horner
        value = (value * x + coefficient) % FIELD
    return value


def split(secret: bytes, t: int, places: Iterable[int], draw: Callable[[int], bytes]) -> dict[int, bytes]:
    """Returns the share of 33 bytes for every place, counted from 1."""
    coefficients = [int.from_bytes(secret, "big")]
    while len(coefficients) < t:
        candidate = int.from_bytes(draw(33), "big") % 2**257
        coefficients += [candidate] if candidate < FIELD else []
    return {x: polynomial_at(coefficients, x).to_bytes(33, "big") for x in places}


def combine(shares: Mapping[int, bytes], t: int) -> bytes:
    """Returns the secret of 32 bytes from the first ``t`` shares; the others must lie on the same polynomial."""
    points = [(x, int.from_bytes(share, "big")) for x, share in sorted(shares.items())]
    chosen = points[:t]
    if any(_through(chosen, x) != y for x, y in points[t:]):
        raise ValueError("a surplus share is not on the polynomial of the others")
    return _through(chosen, 0).to_bytes(32, "big")


def _through(points: Sequence[tuple[int, int]], at: int) -> int:
    """Lagrange's formula."""
    total = 0
    for x, y in points:
        others = [other for other, _ in points if other != x]
        numerator, denominator = y, 1
        for other in others:
            numerator, denominator = numerator * (at - other), denominator * (x - other)
        total += numerator * pow(denominator, -1, FIELD)
    return total % FIELD


# --- A case, its context (§2) and the secrets of a site -------------------------------------------


@dataclass(frozen=True)
class Region:
    holders: tuple[str, ...]
    blocks: tuple[tuple[int, int], ...]  # length and bound

    @property
    def length(self) -> int:
        return sum(length for length, _ in self.blocks)


@dataclass(frozen=True)
class Case:
    """What one attempt starts from; ``last`` names, for sites that fall silent, the last message they send."""

    name: str
    title: str
    roster: tuple[str, ...]
    cohort: tuple[str, ...]
    thresholds: tuple[int, int, int, int]  # n_c, t, min_survivors, min_cover
    bits: int
    fraction_bits: int
    regions: tuple[Region, ...]
    fixed_set: bool = False
    last: Mapping[str, str] = field(default_factory=dict)

    def seed(self, *purpose: str) -> bytes:
        return hashlib.sha256("/".join(("FSA1 vectors", self.name, *purpose)).encode()).digest()

    @property
    def numbered(self) -> dict[int, Region]:
        return dict(enumerate(self.regions, FIRST_REGION))

    def held(self, site: str) -> list[int]:
        return [k for k, region in self.numbered.items() if site in region.holders]

    def sends(self, message: str) -> list[str]:
        """The sites that send ADV, SHR or MSK, in order: U1, U2 and U3."""
        order = ["START", "ADV", "SHR", "MSK", "UNM"]
        return [i for i in self.cohort if order.index(message) <= order.index(self.last.get(i, "UNM"))]

    def values(self, k: int) -> bytes:
        """The tensor that is trained on. Reading: its digest is over opaque bytes, here 4 for each entry."""
        return Stream(self.seed("values", str(k))).draw(4 * self.numbered[k].length)

    def vector(self, site: str, k: int) -> list[int]:
        """A site's input in one region; the first two entries of a block are its bound and minus that."""
        stream, entries = Stream(self.seed("input", site, str(k))), []
        for length, bound in self.numbered[k].blocks:
            drawn = [int.from_bytes(stream.draw(16), "big") % (2 * bound + 1) - bound for _ in range(length)]
            entries += [bound, -bound, *drawn][:length]
        return entries


def roster_digest(version: int, keys: Mapping[str, bytes]) -> bytes:
    """§2.1."""
    return hashed("roster", version, *(part for site in sorted(keys) for part in (site, keys[site])))


def region_digest(case: Case, k: int) -> bytes:
    """§2.4."""
    region, values = case.numbered[k], hashlib.sha256(case.values(k)).digest()
    return hashed("region", k, region.length, *region.holders, values)


def context_of(case: Case) -> dict[str, CborItem]:
    """§2.1; Reading: ``durations`` is a list in the order in which the table names the four."""
    keys = {site: ed25519_public(case.seed("identity", site)) for site in case.roster}
    digests = [region_digest(case, k) for k in case.numbered]
    n_c, t, min_survivors, min_cover = case.thresholds
    return {
        "version": 1,
        "federation": "vectors.example",
        "run": case.seed("run")[:16],
        "round": 3,
        "attempt": 2,
        "roster": roster_digest(7, keys),
        "cohort": case.cohort,
        "n_c": n_c,
        "t": t,
        "min_survivors": min_survivors,
        "min_cover": min_cover,
        "bits": case.bits,
        "fraction_bits": case.fraction_bits,
        "regions": [{"holders": region.holders, "blocks": region.blocks} for region in case.regions],
        "model_root": hashed("model-root", case.seed("plan"), *digests),
        "job": case.seed("job"),
        "purpose": "known answers",
        "asset": "none",
        "durations": [30, 60, 300, 45],
        "fixed_set": case.fixed_set,
    }


class Member:
    """A site in one attempt: its secrets in the order in which it draws them (§4.7)."""

    def __init__(self, case: Case, site: str) -> None:
        self.case, self.site, self.identity_seed = case, site, case.seed("identity", site)
        self.draw = Stream(case.seed("entropy", site)).draw
        self.c_private, self.s_private = self.draw(32), self.draw(32)
        self.c, self.s = x25519_public(self.c_private), x25519_public(self.s_private)
        self.b, self.shares = b"", dict[str, tuple[bytes, bytes]]()

    def share(self, u1: Sequence[str]) -> None:
        """§4.3; the places are those in the cohort, whoever of it advertised."""
        places = {u: 1 + self.case.cohort.index(u) for u in u1}
        _, t, _, _ = self.case.thresholds
        self.b = self.draw(32)
        of_b = split(self.b, t, places.values(), self.draw)
        of_s = split(self.s_private, t, places.values(), self.draw)
        self.shares = {u: (of_b[place], of_s[place]) for u, place in places.items()}


# --- §4.1, §4.2 Masks -----------------------------------------------------------------------------


def layout(case: Case, covered: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Where each region lies in a stream, in bytes: each begins at the next multiple of 16."""
    spans, end = {}, 0
    for k in sorted(covered):
        start = -(-end // 16) * 16
        end = start + case.numbered[k].length * case.bits // 8
        spans[k] = (start, end)
    return spans


def prg(case: Case, key: bytes, covered: Iterable[int]) -> bytes:
    spans = layout(case, covered)
    return aes256_ctr_stream(key, bytes(16), max((end for _, end in spans.values()), default=0))


def words(case: Case, data: bytes) -> list[int]:
    size = case.bits // 8
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


def add_stream(case: Case, sums: dict[int, list[int]], sign: int, key: bytes, covered: Iterable[int]) -> None:
    """Adds a mask, or takes it away, in the regions that it covers."""
    covered = list(covered)
    stream = prg(case, key, covered)
    for k, (start, end) in layout(case, covered).items():
        masked = zip(sums[k], words(case, stream[start:end]), strict=True)
        sums[k] = [(value + sign * mask) % 2**case.bits for value, mask in masked]


def encoded(case: Case, vector: Sequence[int]) -> bytes:
    return b"".join((entry % 2**case.bits).to_bytes(case.bits // 8, "little") for entry in vector)


def signed(case: Case, entry: int) -> int:
    """§4.6."""
    return entry - 2**case.bits if entry >= 2 ** (case.bits - 1) else entry


# --- §3 The attempt -------------------------------------------------------------------------------


class Attempt:
    """The messages of one attempt in the order of §3, each kept as bytes; ids everywhere sorted as bytes."""

    def __init__(self, case: Case) -> None:
        self.case, self.context = case, cbor(context_of(case))
        self.ctx = hashed("ctx", self.context)
        self.u1, self.u2, self.u3 = case.sends("ADV"), case.sends("SHR"), case.sends("MSK")
        self.members = {i: Member(case, i) for i in self.u1}
        keys = [part for i in self.u1 for part in (i, self.members[i].c, self.members[i].s)]
        self.u1h = hashed("u1", self.ctx, *keys)
        *_, min_cover = case.thresholds
        self.active = [k for k, r in case.numbered.items() if len(set(r.holders) & set(self.u1)) >= min_cover]
        for member in self.members.values():
            member.share(self.u1)
        self.sent: dict[str, dict[str, bytes]] = {}
        self.received: dict[str, dict[str, bytes]] = {}
        self._exchange_keys()
        self._exchange_shares()
        self._exchange_masked()
        self._exchange_consistency()
        self._unmask()

    def message(self, kind: str, sender: str | None, **content: CborItem) -> bytes:
        """§3, Reading: ``kind`` is the message's name as written there, in capitals."""
        origin: dict[str, CborItem] = {} if sender is None else {"from": sender}
        return cbor({"kind": kind, "ctx": self.ctx, **origin, **content})

    def sign(self, site: str, label: str, *parts: bytes | str | int) -> bytes:
        return signature(self.members[site].identity_seed, label, hashed(label, self.ctx, *parts))

    def _exchange_keys(self) -> None:
        """§3.0 to §3.2; Reading: a region as a map key is its number in decimal digits, as text."""
        digests = {k: region_digest(self.case, k) for k in self.case.numbered}
        self.received["START"] = {}
        for i in self.case.cohort:
            others = {str(k): digest for k, digest in digests.items() if k not in self.case.held(i)}
            self.received["START"][i] = self.message("START", None, context=self.context, others=others)
        keys: dict[str, tuple[bytes, bytes, bytes]] = {}
        for i, m in self.members.items():
            keys[i] = (m.c, m.s, self.sign(i, "adv", i, m.c, m.s))
        self.sent["ADV"] = {i: self.message("ADV", i, c=c, s=s, sig=sig) for i, (c, s, sig) in keys.items()}
        self.received["KEYS"] = dict.fromkeys(self.u1, self.message("KEYS", None, keys=keys))

    def share_key(self, i: str, u: str, *, mine: str) -> bytes:
        """§3.3: the key of the message from ``i`` to ``u``, as ``mine`` computes it, which is one of the two."""
        c_i, c_u = self.members[i].c, self.members[u].c
        shared = x25519(self.members[mine].c_private, c_u if mine == i else c_i)
        return kdf(shared, "share-enc", hashed("pair", self.ctx, self.u1h, i, u, c_i, c_u))

    def _exchange_shares(self) -> None:
        """§3.3, §3.4."""
        inbox: dict[str, dict[str, CborItem]] = {i: {} for i in self.u2}
        self.sent["SHR"] = {}
        for i in self.u2:
            bcom = hashed("bcom", self.ctx, self.u1h, i, self.members[i].b)
            to = {u: self._sealed_shares(i, u) for u in self.u1}
            leaves = [hashed("shr-leaf", u, hashed("ct", to[u][0]), *to[u][1:]) for u in self.u1]
            sig = self.sign(i, "shr", self.u1h, i, bcom, *leaves)
            self.sent["SHR"][i] = self.message("SHR", i, bcom=bcom, to=to, sig=sig)
            for u in self.u2:
                inbox[u][i] = [bcom, *to[u], leaves, sig]
        self.received["FWD"] = {u: self.message("FWD", None, senders=inbox[u]) for u in self.u2}

    def _sealed_shares(self, i: str, u: str) -> tuple[bytes, bytes, bytes]:
        of_b, of_s = self.members[i].shares[u]
        ad = hashed("share-ad", self.ctx, self.u1h, i, u)
        ct = b"" if u == i else chacha20_poly1305_seal(self.share_key(i, u, mine=i), bytes(12), of_b + of_s, ad)
        if ct and chacha20_poly1305_open(self.share_key(i, u, mine=u), bytes(12), ct, ad) != of_b + of_s:
            raise ValueError("the recipient does not open what was sealed for it")
        bshare = hashed("bshare", self.ctx, self.u1h, i, u, of_b)
        return ct, bshare, hashed("sshare", self.ctx, self.u1h, i, u, of_s)

    def self_key(self, i: str) -> bytes:
        """§4.2."""
        return kdf(self.members[i].b, "self-mask", hashed("self", self.ctx, self.u1h, i))

    def pair_key(self, s_private: bytes, mine: str, other: str) -> bytes:
        """§4.2, from the private key of ``mine``."""
        lo, hi = sorted((mine, other))
        info = hashed("pair-mask", self.ctx, self.u1h, lo, hi, self.members[lo].s, self.members[hi].s)
        return kdf(x25519(s_private, self.members[other].s), "pair-mask", info)

    def covered(self, *sites: str) -> list[int]:
        """The active regions that all of these sites hold."""
        return [k for k in self.active if all(k in self.case.held(i) for i in sites)]

    def _exchange_masked(self) -> None:
        """§3.5, §4.2."""
        self.sent["MSK"], self.masked = {}, dict[str, dict[int, bytes]]()
        for i in self.u3:
            y = {k: self.case.vector(i, k) for k in self.covered(i)}
            add_stream(self.case, y, 1, self.self_key(i), self.covered(i))
            for u in self.u2:
                if u != i:
                    key = self.pair_key(self.members[i].s_private, i, u)
                    add_stream(self.case, y, 1 if i < u else -1, key, self.covered(i, u))
            self.masked[i] = {k: encoded(self.case, vector) for k, vector in y.items()}
            leaves = [part for k, data in self.masked[i].items() for part in (k, hashlib.sha256(data).digest())]
            by_text = {str(k): data for k, data in self.masked[i].items()}
            self.sent["MSK"][i] = self.message("MSK", i, y=by_text, sig=self.sign(i, "msk", self.u1h, i, *leaves))

    def _exchange_consistency(self) -> None:
        """§3.6 to §3.8; Reading: SIGS carries every signature that arrived, the recipient's own among them."""
        sigs = {i: self.sign(i, "u3", self.u1h, *self.u3) for i in self.u3}
        self.received["SURV"] = dict.fromkeys(self.u3, self.message("SURV", None, survivors=self.u3))
        self.sent["CON"] = {i: self.message("CON", i, sig=sig) for i, sig in sigs.items()}
        self.received["SIGS"] = dict.fromkeys(self.u3, self.message("SIGS", None, sigs=sigs))

    def _unmask(self) -> None:
        """§3.9, then the server's part (§4.4, §4.6), with nothing but public keys, masked vectors and these shares."""
        held = {i: {u: self.members[u].shares[i][0 if u in self.u3 else 1] for u in self.u2} for i in self.u3}
        self.sent["UNM"] = {i: self.message("UNM", i, shares=held[i]) for i in self.u3}
        places = {i: 1 + self.case.cohort.index(i) for i in self.u3}
        _, t, _, _ = self.case.thresholds
        self.opened = {u: combine({places[i]: held[i][u] for i in self.u3}, t) for u in self.u2}

        totals = {k: [0] * self.case.numbered[k].length for k in self.active}
        for i in self.u3:
            for k, data in self.masked[i].items():
                totals[k] = [a + b for a, b in zip(totals[k], words(self.case, data), strict=True)]
            key = kdf(self.opened[i], "self-mask", hashed("self", self.ctx, self.u1h, i))
            add_stream(self.case, totals, -1, key, self.covered(i))
        for d in set(self.u2) - set(self.u3):
            for i in self.u3:  # what i added for d stays in the sum: + where i < d, so it is taken away there
                key = self.pair_key(self.opened[d], d, i)
                add_stream(self.case, totals, -1 if i < d else 1, key, self.covered(i, d))
        self.sums = {k: [signed(self.case, entry) for entry in total] for k, total in totals.items()}

    def plain_sums(self) -> dict[int, list[int]]:
        """What must come out: integers added up without ring, masks or messages."""
        summed = {}
        for k in self.active:
            vectors = [self.case.vector(i, k) for i in self.u3 if k in self.case.held(i)]
            summed[k] = [sum(entries) for entries in zip(*vectors, strict=True)]
        return summed
