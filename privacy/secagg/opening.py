"""Turns reconstructed secrets into the masks that come off the sums, after checking them (§4.4, §4.5)."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from privacy.errors import RemoteProtocolError
from privacy.keys.agreement import Secret
from privacy.secagg.bindings import Bindings, pair_sign
from privacy.secagg.context import RoundContext
from privacy.secagg.masks import Mask
from privacy.secagg.suite import RealSuite


@dataclass(frozen=True)
class View:
    """What the coordinator opens with; public."""

    context: RoundContext
    bindings: Bindings = field(repr=False)
    active: tuple[int, ...]
    suite: RealSuite = field(repr=False)


def of_seed(view: View, site: str, b: Secret, bcom: bytes) -> Mask:
    """Returns what takes the self mask of a survivor out of the sums.

    Raises: RemoteProtocolError: The seed does not match its commitment: the dealer's fault.
    """
    if view.bindings.seed_commitment(site, b.reveal()) != bcom:
        raise RemoteProtocolError("the reconstructed seed does not match its commitment")
    return view.bindings.self_mask(view.suite, b, site, view.context.carried(view.active, site), -1)


def of_private_key(view: View, site: str, s: Secret, survivors: Iterable[str]) -> list[Mask]:
    """Returns what takes the pair masks with a site that dropped out of the sums.

    Raises: RemoteProtocolError: The key does not give the advertised public key: the dealer's fault.
    """
    if view.suite.public(s) != view.bindings.keys[site].s:
        raise RemoteProtocolError("the reconstructed private key does not give the advertised public key")
    masks = []
    for u in survivors:
        both = view.context.carried(view.active, site, u)
        if both:
            # The survivor applied it with pair_sign(u, site); the opposite sign takes it out.
            masks.append(view.bindings.pair_mask(view.suite, s, site, u, regions=both, sign=pair_sign(site, u)))
    return masks
