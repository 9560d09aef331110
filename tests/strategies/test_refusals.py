"""What a study's coordinator and its sites refuse alike, before any row is read."""

from dataclasses import replace
from decimal import Decimal
from itertools import chain, combinations, permutations
from typing import Any

import pytest

from privacy.charter.document import SETTINGS
from privacy.dp.combinations import COMBINATIONS, payable, protects_records, units_of
from privacy.dp.plan import DistributedPlan, Unit
from privacy.errors import ConfigError
from strategies.invitation import resolve_invited
from strategies.job import Job
from strategies.refusals import OWN_SCALING, unit_of
from strategies.study import Study
from tests.strategies.studied import DIVIDED, STUDY, invitation, job, study

OWN = 'scaling = "own"\n' + STUDY.replace(", range = [18, 100]", "")
PATIENTS = 'patient = "who"\n' + STUDY
ADAM = STUDY + 'optimizer = "adam"\n'
EVERY_ORDER = [
    *chain.from_iterable(permutations(names) for n in range(4) for names in combinations(SETTINGS, n)),
    ("record", "record"),
]


def answer(study: Study, *privacy: str, unit: Unit, **changes: Any) -> str:
    """What a coordinator of this study is told, and every site that it would invite nevertheless."""
    try:
        job(of=study, privacy=privacy, unit=unit, **changes)
    except ConfigError as error:
        told = str(error)
    else:
        return ""
    parameters = {"local_steps": Decimal(1), "batch": Decimal(0), **changes.pop("parameters", {})}
    sent = replace(
        invitation(job(of=study, parameters=parameters, **changes), to=study), privacy=privacy, unit=str(unit)
    )
    with pytest.raises(ConfigError) as caught:
        resolve_invited(study, sent)
    assert str(caught.value) == told
    return told


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize("privacy", EVERY_ORDER, ids="+".join)
def test_only_what_is_on_offer_is_resolved_and_no_record_is_protected_under_own_scaling(
    privacy: tuple[str, ...], unit: Unit
) -> None:
    offered = unit in COMBINATIONS.get(privacy, ())
    assert ("is not offered" in answer(study(), *privacy, unit=unit)) is not offered
    if not offered:
        return
    assert not answer(study(), *privacy, unit=unit)
    refused = privacy not in {(), ("site",)} and (privacy, unit) != (("distributed",), Unit.SITE)
    assert (OWN_SCALING in answer(study(OWN), *privacy, unit=unit)) is refused
    assert protects_records(privacy, unit) is refused


def claims(of: Job) -> tuple[str, ...]:
    """What a site pays for in a run, by the plans that it adds noise by."""
    own = of.record_plan(of.sites[0], 40)
    shared = of.sum_plan if isinstance(of.sum_plan, DistributedPlan) else None
    return tuple(plan.claim for plan in (own, shared) if plan is not None)


@pytest.mark.parametrize("text", [STUDY, PATIENTS], ids=["records", "patients"])
def test_what_a_site_pays_for_together_is_what_its_plans_claim(text: str) -> None:
    every = [
        claims(job(of=study(text), privacy=names, unit=unit)) for names in COMBINATIONS for unit in units_of(names)
    ]
    assert [found for found in every if found] == list(payable(patients=text is PATIENTS))


def test_a_unit_is_chosen_by_the_settings_and_by_whoever_asks() -> None:
    assert [unit_of("", privacy) for privacy in COMBINATIONS] == ["record", "record", "site", "record", "site"]
    assert (unit_of("record", ("distributed",)), unit_of("site", ("distributed",))) == (Unit.RECORD, Unit.SITE)
    assert unit_of("site", ("record", "distributed")) is Unit.SITE
    for wanted, privacy, why in (
        ("record", ("record", "distributed"), "protects records twice"),
        ("patient", ("distributed",), "--set unit is record or site, not patient"),
        ("site", (), "goes with --privacy distributed"),
        ("site", ("record",), "goes with --privacy distributed"),
        ("", ("record", "site"), "--privacy record --privacy site is not offered"),
    ):
        with pytest.raises(ConfigError, match=why) as caught:
            unit_of(wanted, privacy)
        assert len(caught.value.lines()) <= 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (ADAM, "their sum is the step: it takes sgd, not adam"),
        *(
            (f"{STUDY}\n[agents.cork]\n{own}\n", "cork cannot train by settings of its own")
            for own in ("local_steps = 50", "batch = 8", "learning_rate = 9.0", 'optimizer = "adam"')
        ),
    ],
    ids=["optimizer", "own steps", "own batch", "own rate", "own optimizer"],
)
def test_a_sum_of_records_drops_no_setting_in_silence(text: str, why: str) -> None:
    assert why in answer(study(text), "distributed", unit=Unit.RECORD)
    for privacy, unit in (((), Unit.RECORD), (("distributed",), Unit.SITE), (("record",), Unit.RECORD)):
        assert not answer(study(text), *privacy, unit=unit)


@pytest.mark.parametrize("steps", [{"local_steps": Decimal(2)}, {"batch": Decimal(8)}], ids=str)
def test_a_sum_of_records_is_one_step_at_a_site_as_at_the_coordinator(steps: dict[str, Decimal]) -> None:
    assert "one step a round" in answer(study(), "distributed", unit=Unit.RECORD, parameters=steps)


def test_settings_of_a_site_that_are_those_of_all_are_none_of_its_own() -> None:
    same = f"{STUDY}\n[agents.cork]\nlocal_steps = 1\nlearning_rate = 0.5\n"
    assert not answer(study(same), "distributed", unit=Unit.RECORD)
    others = tuple(site for site in study(DIVIDED).sites if site not in {"brno", "cork"})
    assert not answer(study(DIVIDED), "distributed", unit=Unit.RECORD, sites=others)


@pytest.mark.parametrize(
    ("text", "who"),
    [(ADAM, "alba"), (f'{STUDY}\n[agents.dole]\noptimizer = "adam"\n', "dole")],
    ids=["of all", "of one"],
)
def test_scaffold_is_not_steered_by_steps_that_are_no_gradients(text: str, who: str) -> None:
    """Option II divides the way by the learning rate, which adam's steps are not proportional to."""
    for privacy in ((), ("record",)):
        with pytest.raises(ConfigError, match=f"scaffold takes .* and {who} trains with adam") as caught:
            job("scaffold", of=study(text), privacy=privacy)
        assert "sgd" in caught.value.hint
        assert job("fedprox", of=study(text), privacy=privacy).sites
    each = "".join(f'[agents.{site}]\noptimizer = "sgd"\n' for site in study().sites)
    assert job("scaffold", of=study(ADAM + each)).sites
