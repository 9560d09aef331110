"""Who may do what at the coordinator: its Cedar policy, asked about the account that asks, every answer on record.

The control socket lets in only accounts that the launcher was told of. Among those, this decides; it does not protect
against somebody who can act as the coordinator's own account, who can also edit the policy.
"""

import os
import pwd
from datetime import datetime

from privacy.errors import PrivacyError
from privacy.policy.engine import CedarPolicy
from privacy.policy.requests import ServerFacts, server_request
from privacy.store.log import Record
from privacy.store.site_folder import SiteFolder


class NotAllowedError(PrivacyError):
    """The coordinator's policy does not let this account do that."""


def account() -> str:
    """Returns the name of the account that this process was started from."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def authorise(folder: SiteFolder, action: str, now: datetime, *, user: str, strategy: str = "") -> None:
    """Lets an account act, or refuses; the decision is in the log first.

    Args:
      folder: The coordinator's.
      action: One of ``privacy/policy/server.cedarschema``.
      now: With a time zone.
      user: Name of the account.
      strategy: What it would run, where the action is about one.

    Raises: NotAllowedError: The policy does not allow it. ConfigError: It cannot be used, or nothing can be logged.
    """
    settings = folder.server_settings
    roles = tuple(role for role, accounts in settings.roles.items() if user in accounts)
    policy = CedarPolicy(folder.policy, "server")
    moment = now.astimezone(settings.timezone)
    facts = ServerFacts(user, roles, action, folder.holder.federation, moment, strategy)
    verdict = policy.decide(server_request(facts))
    content = {
        "user": user,
        "action": action,
        "strategy": strategy,
        "allowed": verdict.allowed,
        "reasons": list(verdict.reasons),
        "policy": verdict.policy,
    }
    folder.log().append([Record("access", content)], folder.identity)
    if not verdict.allowed:
        named = ", ".join(verdict.reasons)
        raise NotAllowedError(
            f"{user} may not {action} here: {named}", hint="Roles are in server.toml, rules in server.cedar."
        )
