"""Our own training code: what it did before parts, what is frozen, and who is refused before any record is read."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.agent import LocalWork, TorchAgent
from clients.agents import agent_of, refuse_unless_offered
from clients.records import Records
from clients.scikit_agent import ScikitAgent
from clients.training import Steps, plain_gradient, private_gradient, train
from clients.work import contribute
from privacy.dp.plan import RecordPlan, Unit
from privacy.errors import ConfigError
from strategies.algorithm import Algorithm, LocalRule
from strategies.contribution import Vector
from strategies.fed_avg import FedAvg
from strategies.models import build, layout_of
from strategies.parts import AgentSpec, Kind
from strategies.scaffold import Scaffold
from strategies.sub_models import SubModel, adapter, whole
from strategies.task import ModelSpec
from tests.clients.example import (
    HEAD,
    LAYOUT,
    MLP,
    N_INPUTS,
    START,
    VA,
    Keys,
    clipped_sum,
    mlp_gradients,
    plan,
    records,
    site,
    task,
    vector,
)

LOGISTIC = ModelSpec("logistic")
TINY = ModelSpec("mlp", hidden=(2,), init="torch")
WIDE = ModelSpec("mlp", hidden=(1100,), init="torch")
PLAIN = LocalRule()

# Updates of commit 6210341, where `contribute` itself trained; three steps in batches of 5, second round.
BEFORE_AGENTS: Mapping[tuple[str, str, bool], tuple[float, ...]] = {
    ("logistic", "fedavg", False): (0.3693648, 0.19717258, 0.13666293, -0.3731432),
    ("logistic", "fedavg", True): (0.31140447, 0.109999575, -0.07739068, -0.22200444),
    ("logistic", "scaffold", False): (0.27571696, -0.29978222, -0.12046177, -0.49364173),
    ("logistic", "scaffold", True): (0.16396987, -0.40092844, -0.3731297, -0.2992461),
    ("mlp", "fedavg", False): (
        0.10542014, 0.06991568, 0.007313609, 0.2168853, 0.06355574, 0.037311774,
        -0.082861125, -0.17615971, -0.47277886, -0.1891561, -0.542338,
    ),
    ("mlp", "fedavg", True): (
        0.11700934, 0.009138256, -0.086699575, 0.10324416, -0.05893012, -0.07973514,
        -0.2996543, 0.06378718, -0.16217192, -0.110289365, -0.30030903,
    ),
    ("mlp", "scaffold", False): (
        -0.69741297, -0.61574566, -0.62291366, -0.33386368, -0.3919777, -0.3557909,
        -0.34972656, -0.3806341, -0.92710847, -0.4652257, -0.54614455,
    ),
    ("mlp", "scaffold", True): (
        -0.65961623, -0.68461704, -0.6764794, -0.4292853, -0.5161204, -0.47929895,
        -0.5904521, -0.13078535, -0.3613479, -0.21440741, -0.27103662,
    ),
}  # fmt: skip


def random_piece(spec: ModelSpec, seed: int = 8) -> Vector:
    size = layout_of(build(spec, N_INPUTS, 0)).size
    return (np.random.default_rng(seed).normal(size=size) * 0.3).astype(np.float32)


def agent(
    spec: ModelSpec, *, private: RecordPlan | None = None, data: Records | None = None, **more: Any
) -> TorchAgent:
    settings = {name: more.pop(name) for name in ("steps", "batch", "learning_rate") if name in more}
    return TorchAgent(VA, spec, N_INPUTS, task(**settings).training, data or records(), 1, private, **more)


def work(*, rule: LocalRule = PLAIN, drift: Vector | None = None, round_number: int = 1) -> LocalWork:
    return LocalWork(round_number, rule, drift, Keys())


def frozen_at(spec: ModelSpec, *names: str) -> NDArray[np.bool_]:
    layout = layout_of(build(spec, N_INPUTS, 0))
    return np.repeat([name in names for name in layout.names], layout.sizes)


class TestNothingChanged:
    """The bits depend on torch's kernels for the processor, so they are compared with the same steps on this one."""

    @pytest.mark.parametrize("kind", ["logistic", "mlp"])
    @pytest.mark.parametrize("algorithm", [FedAvg(), Scaffold()], ids=["fedavg", "scaffold"])
    @pytest.mark.parametrize("private", [False, True])
    def test_a_whole_model_trains_as_it_did_before_there_were_parts(
        self, kind: str, algorithm: Algorithm[Any], *, private: bool
    ) -> None:
        start = START if kind == "logistic" else np.linspace(-0.5, 0.5, 11, dtype=np.float32)
        arrays, kept = {"model": start}, {}
        if algorithm.local.control:
            arrays["control"], kept["control"] = np.full_like(start, 0.25), start * np.float32(0.5)
        one = site(
            algorithm=algorithm,
            model=TINY if kind == "mlp" else LOGISTIC,
            batch=5,
            private=plan() if private else None,
        )
        done = contribute(one, arrays, round_number=2, kept=kept, entropy=Keys())
        update = done.contribution.arrays["update"]
        np.testing.assert_allclose(update, BEFORE_AGENTS[kind, algorithm.name, private], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("spec", [LOGISTIC, MLP, WIDE], ids=["logistic", "mlp", "wide"])
    @pytest.mark.parametrize("private", [None, plan(), plan(rate="0.4")], ids=["plain", "full", "poisson"])
    @pytest.mark.parametrize("proximal", [0.0, 0.3])
    def test_it_is_the_steps_of_local_training_to_the_bit(
        self, spec: ModelSpec, private: RecordPlan | None, proximal: float
    ) -> None:
        start, drift, settings = random_piece(spec), random_piece(spec, 9), task(batch=5).training
        if private is None:
            gradient = plain_gradient(records(), settings, site=VA, seed=1)
        else:
            gradient = private_gradient(records(), private, entropy=Keys())
        expected = train(build(spec, N_INPUTS, seed=0), start, Steps(settings, 6, 3, proximal, drift), gradient)
        asked = work(rule=LocalRule(proximal=proximal), drift=drift, round_number=3)
        np.testing.assert_array_equal(agent(spec, private=private, batch=5).train(start, asked), expected)


class TestFrozen:
    @pytest.mark.parametrize("spec", [MLP, WIDE], ids=["integer path", "float path"])
    @pytest.mark.parametrize("names", [("0.weight",), ("0.weight", "0.bias"), ("2.weight",), ("0.bias", "2.bias")])
    @pytest.mark.parametrize("private", [None, plan()], ids=["plain", "record"])
    def test_keeps_its_bits_and_the_rest_moves(
        self, spec: ModelSpec, names: tuple[str, ...], private: RecordPlan | None
    ) -> None:
        start, frozen = random_piece(spec), frozen_at(spec, *names)
        asked = work(rule=LocalRule(proximal=0.3), drift=random_piece(spec, 9))
        end = agent(spec, private=private, frozen=frozen).train(start, asked)
        np.testing.assert_array_equal(end[frozen], start[frozen])
        assert (end[~frozen] != start[~frozen]).all()

    @pytest.mark.parametrize("spec", [MLP, WIDE], ids=["integer path", "float path"])
    def test_has_no_part_in_the_norm_that_is_clipped(self, spec: ModelSpec) -> None:
        start, frozen, data = random_piece(spec), frozen_at(spec, "0.weight", "2.bias"), records()
        gradients = mlp_gradients(data, start)
        clip = float(np.median(np.linalg.norm(gradients[:, ~frozen], axis=1)))
        private = plan(clip=repr(clip), noise="0.000001", steps=1)
        end = agent(spec, private=private, frozen=frozen, steps=1).train(start, work())
        expected = clipped_sum(gradients[:, ~frozen], clip) / len(data)
        together = clipped_sum(gradients, clip)[~frozen] / len(data)
        assert np.abs(expected - together).max() > 1e-3, "or the test would prove nothing"
        np.testing.assert_allclose((start - end)[~frozen] / 0.5, expected, atol=2e-5)

    def test_noise_falls_on_what_is_trained_alone(self) -> None:
        silent = Records(np.zeros((12, N_INPUTS), np.float32), np.full(12, 0.5, np.float32))
        frozen, start = frozen_at(MLP, "0.weight"), np.zeros(21, np.float32)
        ends = [
            agent(MLP, private=plan(steps=1), data=silent, frozen=frozen, steps=1).train(
                start, LocalWork(1, PLAIN, None, Keys(str(salt)))
            )
            for salt in range(200)
        ]
        assert not np.array(ends)[:, frozen].any()
        # One step of rate 0.5: standard deviation 0.5 * (2 * 0.7) / 12.
        assert np.array(ends)[:, ~frozen].std() == pytest.approx(0.5 * 1.4 / 12, rel=0.08)

    def test_a_control_variate_falls_on_the_parameter_it_belongs_to(self) -> None:
        start, drift, frozen = random_piece(MLP), random_piece(MLP, 9), frozen_at(MLP, "0.weight")
        asked = work(rule=LocalRule(control=True), drift=drift)
        end = agent(MLP, frozen=frozen, steps=1).train(start, asked)
        expected = mlp_gradients(records(), start).mean(axis=0) + drift
        np.testing.assert_allclose((start - end)[~frozen] / 0.5, expected[~frozen], atol=1e-5)

    def test_in_part_is_refused(self) -> None:
        frozen = frozen_at(MLP, "0.weight", "2.weight")
        frozen[-2] = False
        with pytest.raises(ConfigError, match=r"of '2\.weight' some entries are trained"):
            agent(MLP, frozen=frozen)
        with pytest.raises(ValueError, match="not \\(21,\\)"):
            agent(MLP, frozen=frozen[1:])


def test_a_plan_that_pays_for_other_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match="va takes 3 steps a round, and its privacy plan pays for 2"):
        agent(LOGISTIC, private=plan(steps=2))


def test_showing_an_agent_shows_no_record() -> None:
    data = Records(np.full((1, N_INPUTS), 0.123, dtype=np.float32), np.ones(1, dtype=np.float32))
    assert "0.123" not in repr(agent(LOGISTIC, data=data))
    assert "0.5" not in repr(work(drift=vector(0.5)))


def built(kind: Kind, part: SubModel, private: RecordPlan | None = None, **settings: float | str) -> Any:
    return agent_of(
        AgentSpec(kind, settings),
        site=VA,
        model=MLP,
        n_inputs=N_INPUTS,
        training=task(batch=5).training,
        records=records(),
        seed=1,
        plan=private,
        part=part,
    )


class TestChoice:
    def test_a_site_has_its_own_settings_and_the_common_ones_beside_them(self) -> None:
        for kind in ("torch", "scikit-learn"):
            one = built(kind, whole(LAYOUT), local_steps=7, learning_rate=0.125)
            assert one.training == replace(task(batch=5).training, local_steps=7, learning_rate=0.125)
        assert isinstance(built("torch", whole(LAYOUT)), TorchAgent)
        assert isinstance(built("scikit-learn", whole(LAYOUT)), ScikitAgent)

    def test_what_a_part_freezes_is_frozen(self) -> None:
        assert built("torch", whole(LAYOUT)).frozen is None
        one = built("torch", adapter(LAYOUT, ["2.*"]))
        np.testing.assert_array_equal(one.frozen, frozen_at(MLP, "0.weight", "0.bias"))

    def test_scikit_learn_is_refused_noise_in_its_steps_and_parameters_apart(self) -> None:
        with pytest.raises(ConfigError, match="the scikit-learn agent of va cannot offer record-level privacy"):
            built("scikit-learn", whole(LAYOUT), plan())
        for part in (adapter(LAYOUT, ["2.*"]), HEAD):
            with pytest.raises(ConfigError, match="nothing can be frozen or private") as caught:
                built("scikit-learn", part)
            assert caught.value.hint


class TestOffers:
    @pytest.mark.parametrize("privacy", [(), ("record",), ("site",), ("distributed",), ("record", "distributed")])
    @pytest.mark.parametrize("unit", Unit)
    def test_torch_can_do_all(self, privacy: tuple[str, ...], unit: Unit) -> None:
        rule = LocalRule(proximal=0.1, control=True)
        refuse_unless_offered("torch", privacy, site=VA, unit=unit, rule=rule)

    @pytest.mark.parametrize(
        ("privacy", "unit"),
        [
            ((), Unit.RECORD),
            (("site",), Unit.SITE),
            (("distributed",), Unit.SITE),
            (("site", "distributed"), Unit.SITE),
        ],
    )
    def test_scikit_learn_can_do_what_needs_no_record_apart(self, privacy: tuple[str, ...], unit: Unit) -> None:
        refuse_unless_offered("scikit-learn", privacy, site=VA, unit=unit)

    @pytest.mark.parametrize(
        ("privacy", "unit"),
        [
            (("record",), Unit.RECORD),
            (("record", "site"), Unit.SITE),
            (("record", "distributed"), Unit.SITE),
            (("distributed",), Unit.RECORD),
            (("distributed",), Unit.PATIENT),
        ],
    )
    def test_scikit_learn_cannot_show_gradients_per_record(self, privacy: tuple[str, ...], unit: Unit) -> None:
        with pytest.raises(ConfigError) as caught:
            refuse_unless_offered("scikit-learn", privacy, site=VA, unit=unit)
        assert caught.value.lines() == [
            "the scikit-learn agent of va cannot offer record-level privacy: it shows no gradients per record",
            "Give va the torch agent, or choose --privacy site.",
        ]

    def test_scikit_learn_cannot_do_what_nobody_has_heard_of(self) -> None:
        with pytest.raises(ConfigError, match="cannot offer --privacy patient"):
            refuse_unless_offered("scikit-learn", ("patient",), site=VA, unit=Unit.SITE)

    @pytest.mark.parametrize("rule", [LocalRule(proximal=0.1), LocalRule(control=True)])
    def test_scikit_learn_corrects_no_step(self, rule: LocalRule) -> None:
        refuse_unless_offered("scikit-learn", (), site=VA, rule=LocalRule())
        with pytest.raises(ConfigError, match="takes plain steps only"):
            refuse_unless_offered("scikit-learn", (), site=VA, rule=rule)
