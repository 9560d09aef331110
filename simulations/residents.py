"""Sites that stay, for Flower's Ray backend: its workers only carry messages to the process that plays the site.

An attempt at secure aggregation lives in the process that began it, secrets never leave that process, and a site
answers its messages one at a time; but Flower hands each message to whichever worker is free. So each site has a
resident: a Ray actor, found by name, that holds its app, its data and its state for the whole run, as the agent of a
real site does. There are as many residents as cores; each plays the sites that fall to it.
"""

import os
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from simulations.members import SimulatedMember

_RESIDENTS: dict[str, Any] = {}
"""Handles by name, kept as long as this worker lives: Ray ends an actor that nobody holds."""


class Resident:
    """Plays some sites of one run."""

    def __init__(self, member_of: SimulatedMember) -> None:
        from clients.app import build  # noqa: PLC0415 - loads torch, which those who only carry messages do without

        self._app = build(member_of)
        self._contexts: dict[int, Context] = {}

    def answer(self, message: Message, context: Context) -> Message:
        """Answers as the site that ``context`` names; what it remembers stays here, not in ``context``."""
        return self._app(message, self._contexts.setdefault(context.node_id, context))


class Courier(ClientApp):
    """The ClientApp that Flower's workers run; without Ray it plays the site itself, in this process."""

    def __init__(self, member_of: SimulatedMember) -> None:
        super().__init__()
        self._member_of = member_of
        self._here: Resident | None = None

    def __call__(self, message: Message, context: Context) -> Message:
        """Returns the resident's answer; Flower reports a resident that died as the node's error."""
        ray = _running_ray()
        if ray is None:
            self._here = self._here or Resident(self._member_of)
            return self._here.answer(message, context)
        place = context.node_config.get("partition-id", 0)
        number = int(place) % (os.cpu_count() or 1)
        name = f"collegium-{context.run_id}-{number}"
        if name not in _RESIDENTS:
            options = ray.remote(Resident).options(name=name, get_if_exists=True, num_cpus=0)
            _RESIDENTS[name] = options.remote(self._member_of)
        answer: Message = ray.get(_RESIDENTS[name].answer.remote(message, context))
        return answer


def _running_ray() -> Any:
    try:
        import ray  # noqa: PLC0415 - an optional extra
    except ImportError:
        return None
    return ray if ray.is_initialized() else None
