"""Every error a public function may raise, split by who must act.

::

    FederationError                  root; has .hint for people; never a secret value in a message
    ├─ ConfigError                   the user: refuse to start
    ├─ PrivacyError                  release nothing
    │  ├─ BudgetExhaustedError       the plan's executions are used up
    │  ├─ UnsupportedEventError      an event nobody can price
    │  └─ SensitivityError           a value that the declared sensitivity does not cover
    ├─ ProtocolError                 abstract
    │  ├─ LocalProtocolError         our bug: crash
    │  └─ RemoteProtocolError        the peer's fault: drop the site
    ├─ VerificationError             a signature or a claim does not hold: drop, record
    ├─ QuorumError                   too few survivors: abort the round, release nothing
    └─ TransportError                the only class a retry loop may catch

A builtin ``TypeError``, ``ValueError`` or ``RuntimeError`` out of a public function is the caller's bug.
"""


class FederationError(Exception):
    """Root of all errors of this project.

    Attributes:
      hint: What the person who reads the message can do about it; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def lines(self) -> list[str]:
        """Returns the one or two plain lines that a command prints."""
        return [str(self), *([self.hint] if self.hint else [])]


class ConfigError(FederationError):
    """Unusable input: an option, a file, data that is not what was declared. Nothing was started."""


class PrivacyError(FederationError):
    """Nothing may be released."""


class BudgetExhaustedError(PrivacyError):
    """The declared executions of a mechanism are used up."""


class UnsupportedEventError(PrivacyError):
    """A privacy event that the accountant cannot price."""


class SensitivityError(PrivacyError):
    """A value that the declared sensitivity does not cover."""


class ProtocolError(FederationError):
    """Abstract: somebody broke the protocol; the subclass says who."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        if type(self) is ProtocolError:
            msg = "ProtocolError is abstract: raise LocalProtocolError or RemoteProtocolError"
            raise TypeError(msg)
        super().__init__(message, hint=hint)


class LocalProtocolError(ProtocolError):
    """We broke the protocol ourselves: a bug."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol.

    Attributes:
      site_id: The peer, if known.
      phase: Where it happened.
    """

    def __init__(self, message: str, *, site_id: str = "", phase: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.site_id = site_id
        self.phase = phase


class VerificationError(FederationError):
    """A signature, digest or claim does not hold."""


class QuorumError(FederationError):
    """Fewer survivors than the floor; nothing is opened."""


class TransportError(FederationError):
    """A message did not get through.

    Attributes:
      retryable: Whether trying again can help.
    """

    def __init__(self, message: str, *, retryable: bool = True, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable
