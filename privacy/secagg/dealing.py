"""Seals one's own shares for every site of U1, and opens what the others dealt (§3.3, §3.4)."""

from collections.abc import Iterator
from contextlib import contextmanager

from privacy.errors import RemoteProtocolError
from privacy.keys.agreement import Secret
from privacy.secagg.admission import ClientConfig
from privacy.secagg.bindings import Bindings, leaf
from privacy.secagg.checked import refuse_unless
from privacy.secagg.context import RoundContext
from privacy.secagg.shares import SHARE_BYTES, check_share, split
from privacy.secagg.wire import Forwarded, Sealed, Shr


@contextmanager
def naming(site: str) -> Iterator[None]:
    """Names the site whose key, signature or share is refused."""
    try:
        yield
    except RemoteProtocolError as error:
        raise RemoteProtocolError(f"{site}: {error}", site_id=site) from None


def deal(
    config: ClientConfig, context: RoundContext, bindings: Bindings, *, c: Secret, s: Secret, b: Secret
) -> tuple[Shr, tuple[Secret, Secret], Forwarded]:
    """Shares ``b`` and ``s`` among U1 (§3.3).

    Args:
      config: Of the dealer.
      context: Agreed.
      bindings: To U1.
      c: Private key for share encryption. Secret.
      s: Private key for pair masks; shared. Secret.
      b: Seed of the self mask; shared. Secret.

    Returns: The message, the dealer's own two shares (secret), and the entry that FWD must have for the dealer.
    Raises: RemoteProtocolError: Some site's key gives an all-zero secret; the site is named.
    """
    me, suite = config.site, config.suite
    places = {u: context.place(u) for u in bindings.u1}
    t = context.thresholds.t
    b_shares = split(b.reveal(), t=t, places=places.values(), entropy=config.entropy)
    s_shares = split(s.reveal(), t=t, places=places.values(), entropy=config.entropy)
    to: dict[str, Sealed] = {}
    for u in bindings.u1:
        share_b, share_s = b_shares[places[u]], s_shares[places[u]]
        ct = b""  # §3.3: to itself a site keeps the shares
        if u != me:
            with naming(u):
                shared = suite.agree(c, bindings.keys[u].c)
            key = suite.kdf(shared.reveal(), "share-enc", bindings.sealing_info(me, u))
            ct = suite.seal(key, share_b + share_s, bindings.associated(me, u))
        commit = bindings.share_commitment
        to[u] = Sealed(ct, commit("bshare", me, u, share_b), commit("sshare", me, u, share_s))
    bcom = bindings.seed_commitment(me, b.reveal())
    leaves = tuple(leaf(u, to[u]) for u in bindings.u1)
    signature = suite.sign(config.key, bindings.shr_message(me, bcom, leaves))
    kept = (Secret(b_shares[places[me]]), Secret(s_shares[places[me]]))
    return Shr(bindings.ctx, me, bcom, to, signature), kept, Forwarded(bcom, to[me], leaves, signature)


def open_shares(
    config: ClientConfig, bindings: Bindings, c: Secret, dealer: str, entry: Forwarded
) -> tuple[Secret, Secret]:
    """Returns the dealer's shares of ``b`` and ``s`` for this site. Secret.

    Raises: RemoteProtocolError: A check of §3.4 fails: leaf, signature, ciphertext, encoding or commitment.
    """
    me, suite = config.site, config.suite
    refuse_unless(len(entry.leaves) == len(bindings.u1), "the leaves of SHR are not one per site of U1")
    refuse_unless(entry.leaves[bindings.u1.index(me)] == leaf(me, entry.sealed), "SHR was signed for other shares")
    signed = bindings.shr_message(dealer, entry.bcom, entry.leaves)
    suite.verify(config.roster.keys[dealer], entry.sig, signed)
    shared = suite.agree(c, bindings.keys[dealer].c)
    key = suite.kdf(shared.reveal(), "share-enc", bindings.sealing_info(dealer, me))
    plain = suite.open(key, entry.sealed.ct, bindings.associated(dealer, me))
    share_b, share_s = plain[:SHARE_BYTES], plain[SHARE_BYTES:]
    check_share(share_b)  # §1.6
    check_share(share_s)
    commit = bindings.share_commitment
    refuse_unless(commit("bshare", dealer, me, share_b) == entry.sealed.bshare, "a share does not match its commitment")
    refuse_unless(commit("sshare", dealer, me, share_s) == entry.sealed.sshare, "a share does not match its commitment")
    return Secret(share_b), Secret(share_s)
