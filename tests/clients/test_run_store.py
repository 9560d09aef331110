"""A run's folder at a site: found again after a restart, whole after a crash, and never outside of where it belongs."""

import os
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, RecordDict

from clients.run_store import RunStore
from privacy.audit.egress import Sent
from privacy.errors import ConfigError, RemoteProtocolError

INVITATION = b"an invitation"


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    made = RunStore(tmp_path / "runs", "first")
    made.admit(INVITATION, 40, 17)
    return made


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../up", "A", "a" * 65, "a\n", "ä", "a\x00"])
def test_no_other_folder_can_be_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(RemoteProtocolError):
        RunStore(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_there_before_an_invitation_was_let_pass(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs", "first")
    assert (store.invitation, store.units, store.closed, store.egress) == (b"", None, False, ())
    state = RecordDict()
    store.restore(state)
    assert not state
    assert RunStore.of_node(tmp_path / "runs", 1) is None
    assert list(tmp_path.iterdir()) == []


def test_what_was_let_pass_is_found_again_by_flowers_last_number(store: RunStore) -> None:
    runs = store.path.parent
    assert store.path.stat().st_mode & 0o077 == 0
    RunStore(runs, "second").admit(b"another", 3, 18)
    for number, name in ((17, "first"), (18, "second")):
        found = RunStore.of_node(runs, number)
        assert found is not None
        assert found.name == name
    store.admit(INVITATION, 40, 99)
    assert RunStore.of_node(runs, 17) is None
    again = RunStore.of_node(runs, 99)
    assert again is not None
    assert (again.invitation, again.units, again.closed) == (INVITATION, 40, False)
    again.close()
    assert store.closed


def test_the_apps_memory_comes_back_to_a_new_process_and_never_over_what_it_remembers(store: RunStore) -> None:
    kept: dict[str, Any] = {"round": 2, "attempt": 1, "kept.control": b"\x00\x01\xff"}
    store.save(RecordDict({"site": ConfigRecord(kept), "invitation": ConfigRecord({"invitation": INVITATION})}))
    fresh = RecordDict()
    store.restore(fresh)
    assert {name: dict(record) for name, record in fresh.items()} == {
        "site": kept,
        "invitation": {"invitation": INVITATION},
    }
    newer = RecordDict({"site": ConfigRecord({"round": 3})})
    store.restore(newer)
    assert dict(newer["site"]) == {"round": 3}
    assert "invitation" in newer


def test_payloads_are_written_down_before_they_leave_and_a_torn_line_is_dropped(store: RunStore) -> None:
    sent = [Sent.of("train.masked", str(number), bytes([number])) for number in range(3)]
    for one in sent:
        store.sent(one)
    assert list(store.egress) == sent
    path = store.path / "egress.jsonl"
    path.write_bytes(path.read_bytes()[:-4])
    assert list(store.egress) == sent[:2]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_where_nothing_can_be_written_nothing_leaves(store: RunStore) -> None:
    store.path.chmod(0o500)
    try:
        with pytest.raises(ConfigError):
            store.sent(Sent.of("train.masked", "1", b""))
        with pytest.raises(ConfigError):
            store.save(RecordDict())
    finally:
        store.path.chmod(0o700)


def test_what_cannot_be_written_down_raises(store: RunStore, tmp_path: Path) -> None:
    (store.path / "egress.jsonl").mkdir()
    with pytest.raises(ConfigError):
        store.sent(Sent.of("train.masked", "1", b""))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError):
        RunStore(tmp_path / "file", "first").admit(INVITATION, 1, 1)


@pytest.mark.parametrize("after", range(3))
def test_a_crash_while_something_is_replaced_leaves_the_old_or_the_new(
    after: int, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power fails before, between and after the writes of one file: never a half of either."""
    old, new = (RecordDict({"site": ConfigRecord({"round": n, "kept": bytes([n]) * 500})}) for n in (1, 2))
    store.save(old)
    steps = iter(range(10))

    class PowerError(BaseException):
        """It failed."""

    def failing(step: object) -> object:
        def run(*args: object, **kwargs: object) -> object:
            if next(steps) == after:
                raise PowerError
            return step(*args, **kwargs)  # type: ignore[operator]

        return run

    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(Path, "replace", failing(Path.replace))
    if after < 2:
        with pytest.raises(PowerError):
            store.save(new)
    else:
        store.save(new)
    monkeypatch.undo()
    found = RecordDict()
    RunStore(store.path.parent, "first").restore(found)
    assert found["site"]["round"] == (2 if after == 2 else 1)
