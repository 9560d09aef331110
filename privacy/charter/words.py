"""A charter in words: everything that an officer should have looked at before signing, a line each.

Keys are told by their ids (SHA-256), which people compare by telephone. A key that were not shown could be exchanged by
whoever writes the draft.
"""

import hashlib
from collections.abc import Iterator

from privacy.charter.document import Allowance, Charter, Server, Site
from privacy.charter.inference import Inference
from privacy.keys.signing import keyid


def lines(charter: Charter) -> list[str]:
    """Returns all of a charter, a line each."""
    return [
        f"Charter of {charter.federation}, version {charter.version}",
        f"Digest       {charter.digest}",
        f"Before       {charter.previous or 'nothing: this is the first'}",
        *_limits(charter),
        *_people(charter),
        *_jobs(charter),
    ]


def changes(before: Charter, after: Charter) -> list[str]:
    """Returns what ``after`` drops (-) and adds (+), a line each."""
    old, new = ([*_limits(one), *_people(one), *_jobs(one)] for one in (before, after))
    dropped = [f"- {line}" for line in old if line not in new]
    return dropped + [f"+ {line}" for line in new if line not in old]


def _limits(charter: Charter) -> Iterator[str]:
    floors = charter.floors
    least = f"{floors.survivors} survivors, {floors.threshold} shares, {floors.cover} holders of a region"
    yield f"Valid        {charter.not_before:%Y-%m-%d %H:%M:%S} until {charter.not_after:%Y-%m-%d %H:%M:%S} UTC"
    yield f"Signatures   {charter.signatures} of {len(charter.officers)} officers"
    yield f"Application  {charter.application}"
    yield f"Floors       at least {floors.cohort} sites in a cohort; {least}; secure aggregation always"
    if floors.cohort == 3 or floors.survivors == 3:  # two sites that compare notes learn the third's update
        yield "             a sum may be of only 3 sites: two that compare notes learn the third one's update"


def _people(charter: Charter) -> Iterator[str]:
    yield f"Server       {charter.server.id}, {charter.server.dns}"
    yield from _keys(charter.server)
    for site in charter.sites.values():
        pens = ", ".join(officer.name for officer in charter.officers if officer.site == site.id)
        reached = "enrolled" if site.flower and site.uri else "not enrolled yet"
        yield f"Site         {site.id}, {site.dns or 'no name in TLS'}, {reached}; signs: {pens}"
        yield from _keys(site)
    for officer in charter.officers:
        yield f"Officer      {officer.name} of {officer.site}: {officer.keyid}"
    for serial in charter.revoked:
        yield f"Revoked      certificate {serial}"


def _keys(holder: Server | Site) -> Iterator[str]:
    yield f"  identity   {holder.id}: {keyid(holder.identity)}"
    if holder.flower is not None:
        yield f"  node key   {holder.id}: {hashlib.sha256(holder.flower.encode()).hexdigest()}"


def _jobs(charter: Charter) -> Iterator[str]:
    for name, digest in charter.studies.items():
        yield f"Study        {name}: {digest}"
    for name, ranges in charter.strategies.items():
        ends = (f"{parameter} {ends.low} to {ends.high}" for parameter, ends in ranges.items())
        yield f"Strategy     {name}: {'; '.join(ends) or 'no parameters'}"
    for name, asset in charter.assets.items():
        used = ", ".join(asset.purposes)
        yield f"Asset        {name} for {used}: at most epsilon {asset.epsilon} at delta {asset.delta} in all"
    yield from (f"Privacy      {name}: {_allowance(allowed)}" for name, allowed in charter.privacy.items())
    if charter.unsafe_without_dp:
        yield "Privacy      UNSAFE: a run may do without any differential privacy"
    for name, digest in charter.chains.items():
        yield f"Chain        {name}: {digest}"
    if charter.inference is not None:
        yield from _inference(charter.inference)


def _inference(terms: Inference) -> Iterator[str]:
    weighed = ", ".join(f"{agent} (weight {terms.weights[agent]})" for agent in terms.agents)
    yield f"Answers      {', '.join(terms.modes)} for {', '.join(terms.purposes)}; at most {terms.most_queries} a batch"
    yield f"  of         {weighed}"
    if terms.noise is None:
        yield "  noise      none: a sum of scores is of all of them, or nobody is answered"
    else:
        noise = terms.noise
        cost = f"at most epsilon {noise.epsilon} at delta {noise.delta} in all"
        yield f"  noise      {noise.multiplier} times what one agent can change; an agent's answers cost it {cost}"


def _allowance(allowed: Allowance) -> str:
    return (
        f"a run at most epsilon {allowed.epsilon} at delta {allowed.delta}, "
        f"clip at most {allowed.clip}, noise at least {allowed.noise} clips"
    )
