"""What a charter says about answering together: which agents, at which weights, for whom and at which cost.

Symbols: ``S`` the one set of agents whose scores may be added up, ``w_i`` the weight of agent ``i``'s scores in that
sum. Both are public and the same for every query: a sum over another set, or with other weights, beside the first one
would tell the difference, which is one agent's answer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from privacy.errors import ConfigError
from privacy.secagg.context import MIN_SITES
from privacy.secagg.encoding import in_order

MODES = ("chain", "ensemble", "local")
"""Stages of a plan one after another; the sum over ``S``; a site's own model for the site itself."""


@dataclass(frozen=True)
class AnswerNoise:
    """Noise in every sum of scores; only with it may an agent be missing.

    Attributes:
      multiplier: Standard deviation of the noise in the sum, over the sum's L2 sensitivity to one agent's scores.
      epsilon: The most that all answers of one agent may ever cost it, over all askers.
      delta: That goes with it.
    """

    multiplier: Decimal
    epsilon: Decimal
    delta: Decimal


@dataclass(frozen=True)
class Inference:
    """The terms of joint answers; all public.

    Attributes:
      agents: ``S``, sorted.
      weights: ``w_i`` of every agent, whole numbers from 1.
      modes: Of ``MODES``, sorted.
      purposes: What may be asked for, sorted.
      most_queries: Rows in one batch at most.
      noise: ``None``: none; then all of ``S`` answers or nobody does.
    """

    agents: tuple[str, ...]
    weights: Mapping[str, int]
    modes: tuple[str, ...]
    purposes: tuple[str, ...]
    most_queries: int
    noise: AnswerNoise | None

    def check(self, sites: Iterable[str]) -> None:
        """Refuses terms under which an answer would be one agent's.

        Raises: ConfigError: A rule is broken, or an agent is no site of the charter.
        """
        where = "inference"
        for what, listed in (("agents", self.agents), ("modes", self.modes), ("purposes", self.purposes)):
            if not in_order(listed):
                raise ConfigError(f"{where}: the {what} are not sorted, or one is listed twice")
        strangers = sorted(set(self.agents) - set(sites))
        if strangers:
            raise ConfigError(f"{where}: {', '.join(strangers)} is no site of the charter")
        if len(self.agents) < MIN_SITES:
            raise ConfigError(
                f"{where}: {len(self.agents)} agents are too few",
                hint=f"Below {MIN_SITES} each would learn another's answer from the sum; no charter can allow that.",
            )
        if set(self.weights) != set(self.agents):
            raise ConfigError(f"{where}: the weights are not those of exactly the agents")
        heaviest = max(self.agents, key=lambda agent: self.weights[agent])
        if 2 * self.weights[heaviest] > sum(self.weights.values()):
            raise ConfigError(
                f"{where}: {heaviest} weighs more than all the others",
                hint="The sum would be little else than its own answer; no charter can allow that.",
            )


def read_inference(entry: Mapping[str, Any]) -> Inference:
    """Reads what the schema has checked."""
    noise = entry["noise"]
    return Inference(
        agents=tuple(entry["agents"]),
        weights=MappingProxyType(dict(entry["weights"])),
        modes=tuple(entry["modes"]),
        purposes=tuple(entry["purposes"]),
        most_queries=entry["most_queries"],
        noise=None if noise is None else AnswerNoise(**{name: Decimal(text) for name, text in noise.items()}),
    )
