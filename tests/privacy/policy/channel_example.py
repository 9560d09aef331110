"""What agents want of each other, each time something that a charter, the floor and a policy may allow."""

from decimal import Decimal

from privacy.policy.channel_requests import AskFacts, HoldFacts, ReleaseFacts

PLAN = "ee" * 32
AGENTS = ("alba", "brno", "cork", "dole")
HOLD = HoldFacts("brno", "cork", PLAN, "training", train=True, stages=3, micro_batch=32)
RELEASE = ReleaseFacts(
    "brno",
    "hearts",
    PLAN,
    "training",
    ("activations",),
    clip=Decimal("1.0005"),
    noise=Decimal("4.0009"),
    most=10,
    epsilon_after=Decimal("1.9999"),
)
UNSAFE = ReleaseFacts("brno", "hearts", PLAN, "training", ("labels", "inputs"), reason="public digits")
ASK = AskFacts("brno", "ensemble", "diagnosis", 100, 300, 900, AGENTS, 1)
NOISED = AskFacts(
    "brno", "ensemble", "diagnosis", 100, 300, 900, AGENTS, 1, noise=Decimal("5.0009"), epsilon_after=Decimal("2.0001")
)
LOCAL = AskFacts("alba", "local", "diagnosis", 100, 300, 900, ("alba",), 0)
