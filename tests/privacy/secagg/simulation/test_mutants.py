"""Mutants of ``privacy/secagg``, made by hand in a copy: the simulation, the scripts or the vectors must notice each.

One that survives is a check that nothing needs, or a test that is missing.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
HERE = Path("tests/privacy/secagg")
KILLERS = (
    HERE / "simulation" / "test_adversaries.py",
    HERE / "simulation" / "test_schedules.py",
    HERE / "test_vectors.py",
)
REGIONS = (HERE / "simulation" / "test_regions.py",)


@dataclass(frozen=True)
class Mutant:
    """One changed piece of text, which must occur exactly once, and what notices it."""

    name: str
    module: str
    old: str
    new: str
    by: tuple[Path, ...] = KILLERS


FIRST = (
    Mutant(
        "cover unchecked",
        "context.py",
        "return next((k for k in active if self._cover",
        "return next((k for k in () if self._cover",
    ),
    Mutant("sign flipped", "bindings.py", "return 1 if me < other else -1", "return 1 if me > other else -1"),
    Mutant("both sides add", "bindings.py", "return 1 if me < other else -1", "return 1"),
    Mutant("SIGS threshold", "client.py", "len(message.sigs) >= memory.context.thresholds.t", "len(message.sigs) >= 1"),
    Mutant("no self mask", "client.py", "masks = [bindings.self_mask(suite, memory.b, me, regions, 1)]", "masks = []"),
)
MORE = (
    Mutant("U1 unchecked", "client.py", '    context.check_set("U1", tuple(keys), context.cohort)\n', ""),
    Mutant("U2 unchecked", "client.py", 'context.check_set("U2", u2, bindings.u1, memory.active)', "pass"),
    Mutant(
        "U2 cover unchecked",
        "client.py",
        'check_set("U2", u2, bindings.u1, memory.active)',
        'check_set("U2", u2, bindings.u1)',
    ),
    Mutant(
        "U3 unchecked",
        "client.py",
        'memory.context.check_set("U3", survivors, tuple(memory.shares), memory.active)',
        "pass",
    ),
    Mutant("U3 cover unchecked", "client.py", "tuple(memory.shares), memory.active)", "tuple(memory.shares))"),
    Mutant("own entry unchecked", "client.py", "keys.get(config.site) == memory.advert", "True"),
    Mutant("own shares unchecked", "client.py", "message.senders[config.site] == memory.sent", "True"),
    Mutant("keys not canonical", "../keys/agreement.py", '"little") >= _FIELD', '"little") >= 2**256'),
    Mutant("repeated keys", "client.py", "len(set(every)) == len(every)", "True"),
    Mutant("keys unsigned", "client.py", "config.suite.verify(config.roster.keys[site], advert.sig, signed)", "pass"),
    Mutant("survivors unsigned", "client.py", "config.suite.verify(config.roster.keys[u], signature, signed)", "pass"),
    Mutant("signers from outside", "client.py", "set(message.sigs) <= set(memory.survivors)", "True"),
    Mutant(
        "SIGS threshold off by one",
        "client.py",
        "len(message.sigs) >= memory.context.thresholds.t",
        "len(message.sigs) >= memory.context.thresholds.t - 1",
    ),
    Mutant(
        "b and s swapped in UNM",
        "client.py",
        "(of_b if u in memory.survivors else of_s)",
        "(of_s if u in memory.survivors else of_b)",
    ),
    Mutant("left out of SURV", "client.py", "config.site in survivors, ", "True, "),
    Mutant(
        "a refusal does not stop the machine",
        "client.py",
        "return _abort(str(error), error.site_id)",
        "return state, _abort(str(error), error.site_id)[1]",
    ),
    Mutant(
        "no record before ADV", "client.py", "_Outcome(after, reply, record)  # §6.1", "_Outcome(after, reply)  # §6.1"
    ),
    Mutant(
        "no debit before MSK",
        "client.py",
        "Msk(context.digest, config.site, y, signature), _debit(config, memory))",
        "Msk(context.digest, config.site, y, signature))",
    ),
    Mutant(
        "expiry ignored",
        "client.py",
        "case effects.Expired(phase) if phase == state.phase and",
        "case effects.Expired(phase) if phase == '' and",
    ),
    Mutant("admitted twice", "admission.py", "(context.round, context.attempt) > last", "True"),
    Mutant("START unbound", "admission.py", "context.digest == message.ctx", "True"),
    Mutant("another job", "admission.py", "context.job == config.job", "True"),
    Mutant("another roster", "admission.py", "context.roster == config.roster.digest", "True"),
    Mutant("another model", "admission.py", "root == context.model_root", "True"),
    Mutant("floors of the site", "admission.py", "context.thresholds.n_c >= wanted", "True"),
    Mutant("all-zero update", "admission.py", "if not (own.noised or vector.any()):", "if False:"),
    Mutant("dealer unsigned", "dealing.py", "suite.verify(config.roster.keys[dealer], entry.sig, signed)", "pass"),
    Mutant("leaf unchecked", "dealing.py", "entry.leaves[bindings.u1.index(me)] == leaf(me, entry.sealed)", "True"),
    Mutant(
        "commitment to b unchecked",
        "dealing.py",
        'commit("bshare", dealer, me, share_b) == entry.sealed.bshare',
        "True",
    ),
    Mutant(
        "commitment to s unchecked",
        "dealing.py",
        'commit("sshare", dealer, me, share_s) == entry.sealed.sshare',
        "True",
    ),
    Mutant("share + p", "shares.py", "or value >= P:", "or value < 0:"),
    Mutant("degree off by one", "shares.py", "for _ in range(t - 1))", "for _ in range(t - 2))"),
    Mutant("surplus shares unchecked", "shares.py", "!= values[extra]:", "!= values[extra] and False:"),
    Mutant("fixed set ignored", "context.py", "not self.fixed_set or set(sites) == set(self.cohort)", "True"),
    Mutant(
        "min_survivors off by one",
        "context.py",
        "len(sites) >= floors.min_survivors",
        "len(sites) >= floors.min_survivors - 1",
    ),
    Mutant(
        "cover off by one",
        "context.py",
        "if self._cover(k, sites) < self.thresholds.min_cover), None)",
        "if self._cover(k, sites) < self.thresholds.min_cover - 1), None)",
    ),
    Mutant(
        "active off by one",
        "context.py",
        "if self._cover(k, u1) >= self.thresholds.min_cover)",
        "if self._cover(k, u1) > self.thresholds.min_cover)",
    ),
    Mutant("threshold rule off by one", "context.py", "2 * self.t <= n + self.n_c", "2 * self.t < n + self.n_c"),
    Mutant("cover floor", "context.py", "self.min_cover < max(MIN_SITES, self.n_c + 2)", "self.min_cover < MIN_SITES"),
    Mutant(
        "survivor floor",
        "context.py",
        "if not max(self.t, self.n_c + 2, MIN_SITES) <= self.min_survivors <= n:",
        "if self.min_survivors > n:",
    ),
    Mutant(
        "wrap unchecked",
        "context.py",
        "if any(len(self.holders) * block.bound >= 1 << (bits - 1)",
        "if any(block.bound >= 1 << (bits - 1)",
    ),
    Mutant("label of CON", "bindings.py", 'labelled("u3"', 'labelled("msk"'),
    Mutant("label of the pair mask", "bindings.py", '"pair-mask", info)', '"self-mask", info)'),
    Mutant(
        "self mask without u1h",
        "bindings.py",
        'digest("self", self.ctx, self.u1h, site.encode())',
        'digest("self", self.ctx, site.encode())',
    ),
    Mutant(
        "one key for both directions",
        "bindings.py",
        "dealer.encode(), recipient.encode(), self.keys[dealer].c, self.keys[recipient].c)",
        "*sorted((self.keys[dealer].c, self.keys[recipient].c)))",
    ),
    Mutant("bcom unchecked", "opening.py", "view.bindings.seed_commitment(site, b.reveal()) != bcom", "False"),
    Mutant("sign of recovery", "opening.py", "sign=pair_sign(site, u)", "sign=pair_sign(u, site)"),
    Mutant(
        "late vectors added",
        "coordinator.py",
        "if message.ctx != config.context.digest or not isinstance(message, row.accepts):",
        "if message.ctx != config.context.digest:",
    ),
    Mutant(
        "vector unsigned",
        "coordinator.py",
        "config.suite.verify(config.roster.keys[message.sender], message.sig, signed)\n    for k, value",
        "for k, value",
    ),
    Mutant("sender unchecked", "coordinator.py", "message.sender == sender", "True"),
    Mutant(
        "revealed shares unchecked",
        "coordinator.py",
        "share_commitment(label, dealer, message.sender, share) == dealt",
        "share_commitment(label, dealer, message.sender, share) != b''",
    ),
)
OF_REGIONS = (
    Mutant(
        "only holders check U2",
        "client.py",
        'check_set("U2", u2, bindings.u1, memory.active)',
        'check_set("U2", u2, bindings.u1, context.carried(memory.active, config.site))',
        REGIONS,
    ),
    Mutant(
        "only holders check U3",
        "client.py",
        "tuple(memory.shares), memory.active)",
        "tuple(memory.shares), memory.context.carried(memory.active, config.site))",
        REGIONS,
    ),
    Mutant("U3 cover unchecked", "client.py", "tuple(memory.shares), memory.active)", "tuple(memory.shares))", REGIONS),
    Mutant("all-zero update", "admission.py", "if not (own.noised or vector.any()):", "if False:", REGIONS),
    Mutant(
        "active by cohort",
        "context.py",
        "if self._cover(k, u1) >= self.thresholds.min_cover)",
        "if self._cover(k, self.cohort) >= self.thresholds.min_cover)",
        REGIONS,
    ),
    Mutant("another model", "admission.py", "root == context.model_root", "True", REGIONS),
    Mutant(
        "U2 cover unchecked by the server",
        "coordinator.py",
        "uncovered(state.active, u2)",
        "uncovered((), u2)",
        REGIONS,
    ),
    Mutant(
        "U3 cover unchecked by the server",
        "coordinator.py",
        "uncovered(state.active, survivors)",
        "uncovered((), survivors)",
        REGIONS,
    ),
)
"""What the tests of regions must notice by themselves."""


def survives(mutant: Mutant, folder: Path) -> str:
    """Runs the killers on a copy with the mutant in it; returns what they say if none of them fails."""
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("privacy", "tests/privacy/secagg", "tests/vectors"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    for package in ("tests", "tests/privacy"):
        shutil.copy(ROOT / package / "__init__.py", folder / package / "__init__.py")
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=ignored)
    target = folder / "privacy" / "secagg" / mutant.module
    text = target.read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1, f"{mutant.name}: the text it changes is gone; write the mutant anew"
    target.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    chosen = (
        "scripted or store or all_zero or another_run or few_schedules or perfect or vectors or sends or makes"
        " or choice"
    )
    command = [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider", "-m", "not soak", *map(str, mutant.by)]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, "-k", f"({chosen}) and not test_schedules[ and not without_the"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout if done.returncode == 0 else ""


@pytest.mark.parametrize("mutant", FIRST, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_five_mutants_are_killed(mutant: Mutant, tmp_path: Path) -> None:
    assert not survives(mutant, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("mutant", OF_REGIONS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_the_tests_of_regions_kill_mutants_alone(mutant: Mutant, tmp_path: Path) -> None:
    assert not survives(mutant, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("mutant", MORE, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_all_mutants_are_killed(mutant: Mutant, tmp_path: Path) -> None:
    assert not survives(mutant, tmp_path)


@pytest.mark.soak
def test_the_killers_pass_without_a_mutant(tmp_path: Path) -> None:
    same = Mutant("none", "client.py", '"""A site\'s side', '"""A site\'s side', (*KILLERS, *REGIONS))
    assert survives(same, tmp_path)
