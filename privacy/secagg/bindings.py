"""Every digest and derived key of §3 and §4, once: what is signed, committed to and mixed into keys, for both machines.

``ctx`` binds the context, ``u1h`` the set U1 with its keys. Ids enter as their ASCII bytes.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from privacy.keys.agreement import Secret
from privacy.secagg.encoding import digest, labelled, u64
from privacy.secagg.masks import Mask, Sign
from privacy.secagg.suite import RealSuite
from privacy.secagg.wire import Advert, Sealed


def advert_message(ctx: bytes, site: str, c: bytes, s: bytes) -> bytes:
    """Returns what an ADV signs (§3.1)."""
    return labelled("adv", digest("adv", ctx, site.encode(), c, s))


def pair_sign(me: str, other: str) -> Sign:
    """Returns +1 if ``me`` adds the mask it has with ``other`` (§4.2): the smaller id adds."""
    return 1 if me < other else -1


@dataclass(frozen=True)
class Bindings:
    """Digests bound to one U1; all public.

    Attributes:
      ctx: Digest of the context.
      keys: The adverts of U1.
    """

    ctx: bytes
    keys: Mapping[str, Advert] = field(repr=False)

    @cached_property
    def u1(self) -> tuple[str, ...]:
        """U1 in order."""
        return tuple(sorted(self.keys))

    @cached_property
    def u1h(self) -> bytes:
        """Digest of U1 and its keys (§3.2)."""
        parts = ((site.encode(), self.keys[site].c, self.keys[site].s) for site in self.u1)
        return digest("u1", self.ctx, *(part for entry in parts for part in entry))

    def sealing_info(self, dealer: str, recipient: str) -> bytes:
        """Returns the info of the key that seals one message in one direction (§3.3)."""
        return self._bound("pair", dealer.encode(), recipient.encode(), self.keys[dealer].c, self.keys[recipient].c)

    def associated(self, dealer: str, recipient: str) -> bytes:
        """Returns the associated data of a sealed share (§3.3)."""
        return self._bound("share-ad", dealer.encode(), recipient.encode())

    def seed_commitment(self, dealer: str, b: bytes) -> bytes:
        """Returns ``bcom`` (§3.3). The 32 uniform bytes of ``b`` blind it."""
        return self._bound("bcom", dealer.encode(), b)

    def share_commitment(self, label: Literal["bshare", "sshare"], dealer: str, recipient: str, share: bytes) -> bytes:
        """Returns ``bshare`` or ``sshare`` (§3.3)."""
        return self._bound(label, dealer.encode(), recipient.encode(), share)

    def shr_message(self, dealer: str, bcom: bytes, leaves: Sequence[bytes]) -> bytes:
        """Returns what an SHR signs (§3.3)."""
        return labelled("shr", self._bound("shr", dealer.encode(), bcom, *leaves))

    def msk_message(self, site: str, y_digests: Mapping[int, bytes]) -> bytes:
        """Returns what an MSK signs: SHA-256 of the vector by region (§3.5)."""
        parts = (part for k in sorted(y_digests) for part in (u64(k), y_digests[k]))
        return labelled("msk", self._bound("msk", site.encode(), *parts))

    def survivors_message(self, survivors: Iterable[str]) -> bytes:
        """Returns what a CON signs (§3.7)."""
        return labelled("u3", self._bound("u3", *(site.encode() for site in sorted(survivors))))

    def self_mask(self, suite: RealSuite, b: Secret, site: str, regions: tuple[int, ...], sign: Sign) -> Mask:
        """Returns the mask under ``b`` of ``site`` over ``regions`` (§4.2)."""
        key = suite.kdf(b.reveal(), "self-mask", digest("self", self.ctx, self.u1h, site.encode()))
        return Mask(key, sign, regions)

    def pair_mask(
        self, suite: RealSuite, private: Secret, owner: str, other: str, *, regions: tuple[int, ...], sign: Sign
    ) -> Mask:
        """Returns the mask of two sites over ``regions`` (§4.2).

        Args:
          suite: The primitives.
          private: Private key ``s`` of ``owner``. Secret.
          owner: One of the two.
          other: The other.
          regions: Active regions that both hold.
          sign: As it is applied.

        Raises: RemoteProtocolError: The other's key gives an all-zero secret.
        """
        low, high = sorted((owner, other))
        shared = suite.agree(private, self.keys[other].s)
        info = self._bound("pair-mask", low.encode(), high.encode(), self.keys[low].s, self.keys[high].s)
        return Mask(suite.kdf(shared.reveal(), "pair-mask", info), sign, regions)

    def _bound(self, label: str, *parts: bytes) -> bytes:
        return digest(label, self.ctx, self.u1h, *parts)


def leaf(recipient: str, sealed: Sealed) -> bytes:
    """Returns ``l_u``: what an SHR signs of one recipient's part (§3.3)."""
    return digest("shr-leaf", recipient.encode(), digest("ct", sealed.ct), sealed.bshare, sealed.sshare)


def y_digests(y: Mapping[int, bytes]) -> dict[int, bytes]:
    """Returns SHA-256 of every masked vector."""
    return {k: hashlib.sha256(value).digest() for k, value in y.items()}
