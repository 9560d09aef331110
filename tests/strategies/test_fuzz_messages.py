"""What is said outside of FSA1, under seeded changes; `make soak` has coverage guide them, with all other decoders."""

from tests.privacy.secagg.fuzz_decoders import strategy_targets
from tests.privacy.secagg.fuzz_engine import Fuzzing


def test_changed_messages_are_read_or_refused() -> None:
    fuzzing = Fuzzing(strategy_targets())
    try:
        fuzzing.plain(3_000, seed=2)
    finally:
        fuzzing.close()
    assert fuzzing.reached == {f"{name} decode" for name in ("Hello", "RoundTask", "SecureTask", "RoundReply")}
    assert set(fuzzing.totals) == {"accepted", "refused"}
    assert min(fuzzing.totals.values()) > 100
