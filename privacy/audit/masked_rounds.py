"""What the signatures of a transcript prove about masked rounds: the ``secagg.rounds`` claim, made and checked here.

The claim is computed from the transcript alone, after every signature in it was checked, so that the verifier need only
compute it again and compare. What the sites did not sign is the coordinator's word: U2 within U1 and U3, and that an
attempt was aborted. Whose the roster's keys are, whether the sites trained as agreed, and that there was no further
attempt cannot be seen from signatures.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from privacy.audit import transcript, words
from privacy.audit.transcript import AttemptRecord
from privacy.errors import ConfigError, RemoteProtocolError, VerificationError
from privacy.keys import signing
from privacy.keys.agreement import check_public
from privacy.secagg.bindings import Bindings, advert_message
from privacy.secagg.context import RUN_BYTES, Roster, RoundContext
from privacy.secagg.effects import Transcript
from privacy.secagg.encoding import in_order
from privacy.secagg.wire import Advert

CLAIM = "secagg.rounds"
# What no two attempts of a run may differ in. A cohort may shrink, and its thresholds with it.
_AGREED = ("federation", "run", "roster", "bits", "fraction_bits", "job", "purpose", "asset", "fixed_set")


def claim_of(data: bytes) -> dict[str, Any]:
    """Checks every line and signature of a transcript and returns the claim that they prove.

    Args:
      data: Untrusted bytes.

    Raises: VerificationError: The first line that is malformed, or whose context or signatures do not hold.
    """
    try:
        return _claim_of(data)
    except (ConfigError, RemoteProtocolError) as error:
        raise VerificationError(str(error)) from None


def _claim_of(data: bytes) -> dict[str, Any]:
    roster, records = transcript.decode(data)
    agreed: RoundContext | None = None
    attempts: list[dict[str, Any]] = []
    cohorts: list[dict[str, Any]] = []
    before = (0, 0)
    for record in records:
        here = (record.round, record.attempt)
        if here <= before:
            raise VerificationError(f"round {here[0]}, attempt {here[1]} is listed after {before[0]}, {before[1]}")
        before = here
        context = None if record.signed is None else _checked(record.signed, record, roster)
        if context is not None:
            agreed = agreed or context
            _check_agreed(context, agreed)
        attempts.append(_attempt(record, context, cohorts))
    if agreed is None:
        raise VerificationError("the transcript has no attempt whose sum was opened")
    return {
        "id": CLAIM,
        "kind": "proved",
        "protocol": transcript.PROTOCOL,
        "transcript_sha256": hashlib.sha256(data).hexdigest(),
        "roster": agreed.roster.hex(),
        "job": agreed.job.hex(),
        "cohorts": cohorts,
        "ring_bits": agreed.bits,
        "fixed_set": agreed.fixed_set,
        "attempts": attempts,
    }


def _attempt(record: AttemptRecord, context: RoundContext | None, cohorts: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns an attempt as the claim lists it; adds its cohort to ``cohorts`` if it is a new one."""
    number, signed = {"round": record.round, "attempt": record.attempt}, record.signed
    if signed is None or context is None:
        empty = dict.fromkeys(("cohort", "model_root", "ctx"))
        return {**number, **empty, "survivors": [], "regions": [], "aborted": record.reason}
    cohort = {"sites": list(context.cohort), **vars(context.thresholds)}
    if cohort not in cohorts:
        cohorts.append(cohort)
    return {
        **number,
        "cohort": cohorts.index(cohort),
        "survivors": list(signed.survivors),
        "regions": [
            {"holders": len(set(region.holders) & set(signed.survivors)), "entries": region.length}
            for region in (context.regions[k] for k in signed.active)
        ],
        "model_root": context.model_root.hex(),
        "ctx": context.digest.hex(),
        "aborted": None,
    }


def _checked(signed: Transcript, record: AttemptRecord, roster: Roster) -> RoundContext:
    """Returns the context of an attempt in which everything holds. Raises: VerificationError: Something does not."""
    try:
        context = RoundContext.decode(signed.context)  # §2: thresholds, floors, no wrap
        _check_context(context, record, roster)
        _check_sets(context, signed)
        _check_adverts(context, roster, signed.adverts)
        _check_inputs(context, roster, signed)
        _check_survivors(context, roster, signed)
    except (RemoteProtocolError, VerificationError) as error:
        raise VerificationError(f"round {record.round}, attempt {record.attempt}: {error}") from None
    return context


def _check_context(context: RoundContext, record: AttemptRecord, roster: Roster) -> None:
    if (context.round, context.attempt) != (record.round, record.attempt):
        raise VerificationError("the context is that of another attempt")
    if context.roster != roster.digest or not set(context.cohort) <= set(roster.keys):
        raise VerificationError("the context names another roster, or a site that the roster lacks")


def _check_agreed(context: RoundContext, agreed: RoundContext) -> None:
    for name in _AGREED:
        if getattr(context, name) != getattr(agreed, name):
            raise VerificationError(f"round {context.round}, attempt {context.attempt} has another {name} than before")


def _check_sets(context: RoundContext, signed: Transcript) -> None:
    """§3.2, §3.4, §3.6: each set lies in the one before, is large enough, and covers every active region."""
    u1 = tuple(sorted(signed.adverts))
    if not in_order(signed.u2) or not in_order(signed.survivors):
        raise VerificationError("a list of sites is not sorted, or repeats one")
    if not signed.active or signed.active != context.active(u1):
        raise VerificationError("the active regions are not those that U1 covers")
    context.check_set("U1", u1, context.cohort, signed.active)
    context.check_set("U2", signed.u2, u1, signed.active)
    context.check_set("U3", signed.survivors, signed.u2, signed.active)


def _check_adverts(context: RoundContext, roster: Roster, adverts: Mapping[str, Advert]) -> None:
    """§3.2: every key in its one encoding, none twice, each signed by its site for this context."""
    keys = [key for advert in adverts.values() for key in (advert.c, advert.s)]
    for key in keys:
        check_public(key)
    if len(set(keys)) != len(keys):
        raise VerificationError("a key occurs twice")
    for site, advert in adverts.items():
        message = advert_message(context.digest, site, advert.c, advert.s)
        _check_signature(roster, site, "its keys", advert.sig, message)


def _check_inputs(context: RoundContext, roster: Roster, signed: Transcript) -> None:
    """§3.5: every survivor, and nobody else, signed the digests of the vectors that it had to send."""
    if set(signed.msk_signatures) != set(signed.survivors):
        raise VerificationError("the masked inputs are not those of the survivors")
    bindings = Bindings(context.digest, signed.adverts)
    for site, signature in signed.msk_signatures.items():
        digests = signed.y_digests[site]
        if tuple(sorted(digests)) != context.carried(signed.active, site):
            raise VerificationError(f"{site} did not send the active regions that it holds")
        _check_signature(roster, site, "its masked input", signature, bindings.msk_message(site, digests))


def _check_survivors(context: RoundContext, roster: Roster, signed: Transcript) -> None:
    """§3.8: at least t survivors signed this very set, once each."""
    if not set(signed.con_signatures) <= set(signed.survivors):
        raise VerificationError("somebody signed the survivors who is not one of them")
    if len(signed.con_signatures) < context.thresholds.t:
        raise VerificationError(f"{len(signed.con_signatures)} sites signed the survivors, not {context.thresholds.t}")
    message = Bindings(context.digest, signed.adverts).survivors_message(signed.survivors)
    for site, signature in signed.con_signatures.items():
        _check_signature(roster, site, "the survivors", signature, message)


def _check_signature(roster: Roster, site: str, what: str, signature: bytes, message: bytes) -> None:
    try:
        signing.verify(roster.keys[site], signature, message)
    except VerificationError:
        raise VerificationError(f"the signature of {site} over {what} does not fit") from None


def other_run(run: str, data: bytes) -> Iterator[str]:
    """Yields, in words, if the sites signed the sums of another run: a transcript cannot serve twice.

    Args:
      run: As the report names it.
      data: A transcript in which everything holds, and all of whose attempts are of one run.
    """
    _, records = transcript.decode(data)
    signed = next(record.signed for record in records if record.signed is not None)
    if RoundContext.decode(signed.context).run != hashlib.sha256(run.encode()).digest()[:RUN_BYTES]:
        yield "the sites signed the sums of another run than the report's"


def problems(claim: Mapping[str, Any], data: bytes, progress: Callable[[str], None]) -> list[str]:
    """Compares a ``secagg.rounds`` claim with the transcript that it names.

    Args:
      claim: Fits the schema and agrees with the rest of its report.
      data: The transcript at hand. Untrusted.
      progress: Called with one plain line before the signatures are checked.

    Returns: Disagreements in words; none means that the claim holds.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != claim["transcript_sha256"]:
        return [f"the transcript has SHA-256 {found[:16]}..., the report's is another"]
    progress(f"checking the signatures of {len(claim['attempts'])} attempts")
    try:
        proved = claim_of(data)
    except VerificationError as error:
        return [str(error)]
    return [f"'{name}' is not what the transcript proves" for name in proved if proved[name] != claim[name]]


def is_divided(attempt: Mapping[str, Any]) -> bool:
    """Tells whether an attempt of the claim opened other sums than one over all survivors."""
    return [region["holders"] for region in attempt["regions"]] != [len(attempt["survivors"])]


def summary(claim: Mapping[str, Any]) -> str:
    """Returns in one line what a claim that holds shows, and what it does not."""
    opened = [attempt for attempt in claim["attempts"] if attempt["aborted"] is None]
    sizes = " or ".join(map(str, sorted({len(attempt["survivors"]) for attempt in opened})))
    aborted = len(claim["attempts"]) - len(opened)
    nothing = f", {words.count(aborted, 'attempt')}, says the coordinator, opened nothing" if aborted else ""
    covers = [region["holders"] for attempt in opened if is_divided(attempt) for region in attempt["regions"]]
    regions = f", each sum of a region over at least {min(covers)} sites" if covers else ""
    cover = "{} in that of a region, " if covers else ""
    limits = "".join(
        f" of {len(cohort['sites'])} sites at least {cohort['min_survivors']} in a sum, "
        f"{cover.format(cohort['min_cover'])}threshold {cohort['t']}, "
        f"{cohort['n_c']} may collude;"
        for cohort in claim["cohorts"]
    )
    return (
        f"the roster's keys signed {words.count(len(opened), 'sum')} over {sizes} sites{regions}, one model root "
        f"each{nothing};{limits} not shown: whose keys these are, how sites trained, that no other sum was opened"
    )
