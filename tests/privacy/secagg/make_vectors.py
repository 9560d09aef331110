"""Writes the known answers of FSA1: `python -m tests.privacy.secagg.make_vectors`.

The cases are chosen for what they tell apart: ids whose order as text differs from their order as CBOR keys ("aachen"
and "b"), a cohort that is not the whole roster, regions that do not fill 16 bytes, sites that fall silent after each
message.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from tests.privacy.secagg.independent import Attempt, Case, Member, Region, prg
from tests.privacy.secagg.independent_primitives import ed25519_public

Json: TypeAlias = "bool | int | str | Sequence[Json] | Mapping[str, Json]"

FOLDER: Final = Path(__file__).parents[2] / "vectors" / "fsa1"

THREE, FOUR = ("aachen", "b", "berlin"), ("aachen", "b", "berlin", "c-2.x")
FIVE, SIX = ("aachen", "b", "berlin", "c-2.x", "d_5"), ("aachen", "b", "berlin", "c-2.x", "d_5", "zz")

CASES: Final = (
    Case(
        name="three_sites",
        title="three sites, nobody drops out, one region of two blocks, 32 bits, a fixed set",
        roster=THREE,
        cohort=THREE,
        thresholds=(0, 2, 3, 3),
        bits=32,
        fraction_bits=16,
        regions=(Region(THREE, ((11, 2**20), (6, 715827882))),),
        fixed_set=True,
    ),
    Case(
        name="four_sites_one_dropped",
        title="four of five in the roster, one falls silent after SHR, one region, 64 bits",
        roster=("a0", *FOUR),
        cohort=FOUR,
        thresholds=(1, 3, 3, 3),
        bits=64,
        fraction_bits=40,
        regions=(Region(FOUR, ((37, 2**60),)),),
        last={"b": "SHR"},
    ),
    Case(
        name="five_sites_three_regions",
        title="five sites, regions of different holders, the second inactive; one silent from the start, one after SHR",
        roster=FIVE,
        cohort=FIVE,
        thresholds=(0, 3, 3, 3),
        bits=32,
        fraction_bits=10,
        regions=(
            Region(FIVE, ((7, 400000000), (2, 1000))),
            Region(("b", "berlin", "c-2.x"), ((5, 9),)),
            Region(("aachen", "b", "berlin", "d_5"), ((13, 2**16),)),
        ),
        last={"b": "START", "c-2.x": "SHR"},
    ),
    Case(
        name="six_sites_silent_after_each_message",
        title="six sites, 64 bits; one falls silent after ADV, one after SHR; two regions that they hold in part",
        roster=SIX,
        cohort=SIX,
        thresholds=(0, 4, 4, 3),
        bits=64,
        fraction_bits=30,
        regions=(Region(("aachen", "b", "c-2.x", "d_5", "zz"), ((3, 2**50),)), Region(SIX, ((5, 1), (4, 2**59)))),
        last={"berlin": "ADV", "aachen": "SHR"},
    ),
)


def described(case: Case) -> dict[str, Json]:
    """One vector: inputs, then every intermediate value, bytes as hexadecimal text."""
    attempt = Attempt(case)
    return {
        "title": case.title,
        "source": "tests/privacy/secagg/independent.py, from docs/protocol.md",
        "random": "SHA256(seed || u64(0)) || SHA256(seed || u64(1)) || ..., drawn from the front, per site",
        "roster": {
            "version": 7,
            "keys": {site: ed25519_public(case.seed("identity", site)).hex() for site in case.roster},
        },
        "sites": {site: _site(case, site) for site in case.cohort},
        "regions": {
            str(k): {
                "holders": region.holders,
                "blocks": region.blocks,
                "values": case.values(k).hex(),
                "active": k in attempt.active,
            }
            for k, region in case.numbered.items()
        },
        "plan_digest": case.seed("plan").hex(),
        "job": case.seed("job").hex(),
        "context": attempt.context.hex(),
        "ctx": attempt.ctx.hex(),
        "u1": attempt.u1,
        "u2": attempt.u2,
        "u3": attempt.u3,
        "u1h": attempt.u1h.hex(),
        "secrets": {i: _secrets(attempt, member) for i, member in attempt.members.items()},
        "sent": {kind: _hex(by_site) for kind, by_site in attempt.sent.items()},
        "received": {kind: _hex(by_site) for kind, by_site in attempt.received.items()},
        "opened": _hex(attempt.opened),
        "sums": {str(k): total for k, total in attempt.sums.items()},
        "plain_sums": {str(k): total for k, total in attempt.plain_sums().items()},
    }


def _hex(by_site: Mapping[str, bytes]) -> dict[str, Json]:
    return {site: data.hex() for site, data in by_site.items()}


def _site(case: Case, site: str) -> Json:
    return {
        "identity_seed": case.seed("identity", site).hex(),
        "entropy_seed": case.seed("entropy", site).hex(),
        "input": {str(k): case.vector(site, k) for k in case.held(site)},
        "last": case.last.get(site, "UNM"),
    }


def _secrets(attempt: Attempt, member: Member) -> Json:
    """Keys, shares and streams of a site whose keys arrived; pairs only with sites of U2, as §4.2 takes them."""
    i, case, others = member.site, attempt.case, [u for u in attempt.u2 if u != member.site]
    pair_keys = {u: attempt.pair_key(member.s_private, i, u) for u in others} if i in attempt.u2 else {}
    self_key = attempt.self_key(i)
    return {
        "c_private": member.c_private.hex(),
        "c": member.c.hex(),
        "s_private": member.s_private.hex(),
        "s": member.s.hex(),
        "b": member.b.hex(),
        "shares_of_b": {u: of_b.hex() for u, (of_b, _) in member.shares.items()},
        "shares_of_s": {u: of_s.hex() for u, (_, of_s) in member.shares.items()},
        "share_keys": {u: attempt.share_key(i, u, mine=i).hex() for u in attempt.u1 if u != i},
        "self_key": self_key.hex(),
        "self_stream": prg(case, self_key, attempt.covered(i)).hex(),
        "pair_keys": _hex(pair_keys),
        "pair_streams": {u: prg(case, key, attempt.covered(i, u)).hex() for u, key in pair_keys.items()},
    }


def rendered(case: Case) -> str:
    return json.dumps(described(case), indent=1) + "\n"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        (FOLDER / f"{case.name}.json").write_text(rendered(case), encoding="utf-8")


if __name__ == "__main__":
    main()
