"""A signed report goes round: each site may sign it as well. Whoever does not, whatever the reason, stops nobody."""

from collections.abc import Callable

from privacy.audit import envelope, statement
from privacy.errors import VerificationError
from server.exchange import Exchange
from strategies.messages import COSIGN
from strategies.task import SiteId


def cosigned(exchange: Exchange, signed: bytes, *, group: str, note: Callable[[str], None]) -> bytes:
    """Returns a report with the signatures of those cosigners that check it and sign in time.

    Args:
      exchange: Asks the sites that answered the roll call, and waits for one deadline at most.
      signed: The bytes of ``report.dsse.json``, signed by its signer.
      group: Flower's group id.
      note: Told, in a plain line, who does not sign and why.
    """
    keys = statement.decode(envelope.decode(signed).payload).cosigners
    asked = [site for site in exchange.nodes if site in keys]
    answers = exchange.ask(COSIGN, dict.fromkeys(asked, signed), group=group)
    why: dict[SiteId, str] = dict(answers.missing)
    for site, signature in answers.payloads.items():
        try:
            signed = envelope.add_signature(signed, keys[site], signature)
        except VerificationError as error:
            why[site] = str(error)
    for site, reason in why.items():
        note(f"{site} does not sign the report: {reason}")
    return signed
