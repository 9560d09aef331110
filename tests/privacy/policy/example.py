"""A policy, and the facts of a run that it allows."""

from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from privacy.policy.requests import Protection, TrainingFacts

POLICY = """
@id("training")
permit (principal == Coordinator::"hub", action == Action::"train", resource is Asset)
when { resource.purposes.contains(context.purpose) };

@id("few")
forbid (principal, action, resource) when { context.cohort < 4 };

@id("none")
forbid (principal, action, resource) when { context.settings.isEmpty() };
"""

FACTS = TrainingFacts(
    server="hub",
    asset="heart-disease",
    sensitivity="special-category",
    purposes=("training", "quality"),
    epsilon_cap=Decimal(4),
    federation="hospitals",
    strategy="fedavg",
    study="1" * 64,
    application="2" * 64,
    purpose="training",
    secagg=True,
    cohort=5,
    survivors=4,
    threshold=4,
    cover=3,
    rounds=18,
    protection=Protection(
        settings=("record",),
        epsilon=Decimal("0.9999"),
        epsilon_after=Decimal("1.0001"),
        delta=Decimal("0.001"),
        clip=Decimal("1.0005"),
        noise=Decimal("1.2349"),
    ),
    moment=datetime(2026, 7, 6, 23, 5, tzinfo=ZoneInfo("Europe/Berlin")),
)
