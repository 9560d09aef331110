"""The planner against an enumeration of all chains that shares none of its code, and its rules one by one."""

import itertools
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from strategies.analysis import analyse
from strategies.cuts import find_cuts
from strategies.devices import Device, Devices
from strategies.planner import Objective, Profile, Segment, Workload, alone, plan, profile
from strategies.release import Crossing, Release, UnsafeRelease
from strategies.tracing import trace
from tests.strategies.zoo import made

FREE = frozenset(Crossing)


def device(name: str, speed: float = 1e9, memory: float = 1e9, organisation: str = "one") -> Device:
    return Device(name, organisation, speed, memory, bandwidth=1e6, round_trip=0.01)


def row(*flops: float, crossing: float = 1000, trained: float = 1000, kept: float = 1000) -> Profile:
    segments = tuple(Segment(each, trained, 0.0, kept, kept) for each in flops)
    return Profile(segments, (crossing,) * (len(flops) + 1), tuple(f"cut{i}" for i in range(1, len(flops))))


def held(devices: Devices, model: Profile, work: Workload, objective: Objective = Objective.LATENCY) -> list[Any]:
    chain = plan(model, devices, work, objective)
    return [] if chain is None else [(stage.device.name, stage.start, stage.end) for stage in chain.stages]


# A random case is plain numbers; the planner's types are built from them at the end, the enumeration reads them raw.


def random_case(rng: random.Random) -> dict[str, Any]:
    n = rng.randint(1, 5)
    organisations = [rng.choice("ABC") for _ in range(3)]
    likely = {Crossing.INPUTS: 0.2, Crossing.ACTIVATIONS: 0.9, Crossing.GRADIENTS: 0.9, Crossing.LABELS: 0.2}
    released = {(what, to) for what in Crossing for to in "ABC" if rng.random() < likely[what]}
    total = 4 * 1000.0 * n
    return {
        "flops": [rng.choice([0.0, rng.uniform(1e6, 1e9)]) if rng.random() < 0.1 else rng.uniform(1e6, 1e9)
                  for _ in range(n)],
        "trained": [rng.uniform(100, 2000) for _ in range(n)],
        "fixed": [rng.uniform(0, 200) for _ in range(n)],
        "kept": [rng.uniform(100, 3000) for _ in range(n)],
        "live": [rng.uniform(100, 3000) for _ in range(n)],
        "crossing": [10 ** rng.uniform(2, 6) / (50 if b == 0 else 1) for b in range(n + 1)],
        "speed": [10 ** rng.uniform(8, 10.5) for _ in range(3)],
        "memory": [rng.uniform(0.2, 2) * total if i == 0 else rng.choice([1e9, rng.uniform(0.2, 2) * total])
                   for i in range(3)],
        "bandwidth": [10 ** rng.uniform(5, 8) for _ in range(3)],
        "round_trip": [rng.choice([0.0, 10 ** rng.uniform(-4, -1)]) for _ in range(3)],
        "organisation": organisations,
        "released": released,
        "train": rng.random() < 0.6,
        "in_flight": rng.randint(1, 4),
        # what each device was measured to take for each segment; None: it works at its speed
        "timed": [[10 ** rng.uniform(-3, 0) for _ in range(n)] if rng.random() < 0.2 else None for _ in range(3)],
    }  # fmt: skip


def enumerated(case: dict[str, Any], objective: str) -> float:
    """Returns the best cost over every subset of the devices in order, with and without the way back to the first."""
    n, best = len(case["flops"]), math.inf
    orders = [order for size in (1, 2, 3) for order in itertools.combinations(range(3), size)]
    orders += [(*order, 0) for order in orders if order[-1] != 0]
    for order in orders:
        for inner in itertools.combinations(range(1, n), len(order) - 1):
            bounds = (0, *inner, n)
            for flying in range(1, case["in_flight"] + 1) if objective == "throughput" else (1,):
                best = min(best, cost_of(case, order, bounds, flying, objective))
    return best


def cost_of(
    case: dict[str, Any], order: tuple[int, ...], bounds: tuple[int, ...], flying: int, objective: str
) -> float:
    work, need = [0.0] * 3, [0.0] * 3
    for who, low, high in zip(order, bounds, bounds[1:], strict=False):
        forward, timed = sum(case["flops"][low:high]) / case["speed"][who], case["timed"][who]
        weights = sum(case["trained"][low:high])
        work[who] += (3 if case["train"] else 1) * forward if timed is None else sum(timed[low:high])
        if case["train"]:
            # weights, gradients and two moments of Adam
            need[who] += 4 * weights + flying * (case["crossing"][low] + sum(case["kept"][low:high]))
        else:
            need[who] += weights + flying * max(case["live"][low:high])
        need[who] += sum(case["fixed"][low:high])
    if any(wanted > there for wanted, there in zip(need, case["memory"], strict=True)):
        return math.inf
    busy, latency = list(work), sum(work)
    for line, way in moves(case, order, bounds):
        if line is None:
            return math.inf
        busy.append(line)
        latency += line + way
    return latency if objective == "latency" else max(*busy, latency / flying)


def moves(case: dict[str, Any], order: tuple[int, ...], bounds: tuple[int, ...]) -> list[tuple[float | None, float]]:
    """Returns line time (None: forbidden) and delay of every transfer of a chain."""
    owner, passed = case["organisation"][0], []

    def allowed(what: str, giver: int, taker: int) -> bool:
        to = case["organisation"][taker]
        return to in (case["organisation"][giver], owner) or (what, to) in case["released"]

    def sent(giver: int, taker: int, size: float, what: str) -> tuple[float | None, float]:
        if not allowed(what, giver, taker):
            return None, 0.0
        slowest = min(case["bandwidth"][giver], case["bandwidth"][taker])
        return size / slowest, case["round_trip"][giver] / 2 + case["round_trip"][taker] / 2

    if order[0] != 0:
        passed.append(sent(0, order[0], case["crossing"][0], "inputs"))
    for giver, taker, bound in zip(order, order[1:], bounds[1:], strict=False):
        up = sent(giver, taker, case["crossing"][bound], "activations")
        down = sent(taker, giver, case["crossing"][bound], "gradients") if case["train"] else (0.0, 0.0)
        forbidden = up[0] is None or down[0] is None
        passed.append((None if forbidden else (up[0] or 0) + (down[0] or 0), up[1] + down[1]))
    if order[-1] != 0:
        if case["train"]:
            passed.append((0.0 if allowed("labels", 0, order[-1]) else None, 0.0))
        else:
            passed.append(sent(order[-1], 0, case["crossing"][-1], "outputs"))
    return passed


def built(case: dict[str, Any]) -> tuple[Profile, Devices, Workload]:
    parts = zip(case["flops"], case["trained"], case["fixed"], case["kept"], case["live"], strict=True)
    model = Profile(
        tuple(Segment(*each) for each in parts),
        tuple(case["crossing"]),
        tuple(f"c{i}" for i in range(len(case["flops"]) - 1)),
    )
    devices = tuple(
        Device(f"d{i}", case["organisation"][i], case["speed"][i], case["memory"][i], case["bandwidth"][i],
               case["round_trip"][i]) for i in range(3)
    )  # fmt: skip
    owner = case["organisation"][0]
    releases = tuple(UnsafeRelease(owner, to, frozenset({what}), "test") for what, to in case["released"])
    timed = {f"d{i}": tuple(each) for i, each in enumerate(case["timed"]) if each is not None}
    return model, Devices(devices, releases), Workload(case["train"], in_flight=case["in_flight"], timed=timed)


@pytest.mark.parametrize("objective", list(Objective))
def test_the_plan_is_the_best_of_all_chains(objective: Objective) -> None:
    rng = random.Random(f"planner {objective}")  # noqa: S311 - the same cases every time
    feasible = several = around = skipped = measured = 0
    for _ in range(200):
        case = random_case(rng)
        expected = enumerated(case, str(objective))
        chain = plan(*built(case), objective)
        if chain is None:
            assert expected == math.inf, case
            continue
        cost = chain.latency if objective is Objective.LATENCY else chain.period
        assert cost == pytest.approx(expected, rel=1e-9), case
        # What it says of its own stages is true, too.
        order = tuple(int(stage.device.name[1]) for stage in chain.stages)
        bounds = (0, *(stage.end for stage in chain.stages))
        assert cost_of(case, order, bounds, chain.in_flight, "latency") == pytest.approx(chain.latency, rel=1e-9)
        assert cost_of(case, order, bounds, chain.in_flight, "throughput") == pytest.approx(chain.period, rel=1e-9)
        feasible += 1
        several += len(set(order)) > 1
        around += len(order) > 1 and order[0] == order[-1] == 0
        skipped += order[0] != 0
        measured += any(case["timed"][who] is not None for who in order)
    # The cases are worth something: each kind of chain is the best one several times.
    assert feasible > 100
    assert min(several, around, skipped, measured) >= 8, (several, around, skipped, measured)


def test_a_slow_device_stays_empty() -> None:
    fast, slow = device("fast", 1e10), device("slow", 1e7)
    assert held(Devices((fast, slow, replace(slow, name="slow2"))), row(1e9, 1e9, 1e9), Workload()) == [("fast", 0, 3)]


def test_what_does_not_fit_is_shared_and_a_slow_owner_of_data_may_hold_nothing() -> None:
    small = device("small", memory=8_000)
    assert held(Devices((small, device("big"))), row(1e6, 1e6, 1e6), Workload())[-1][0] == "big"
    tiny, big = device("tiny", speed=1e6, memory=10), device("big")
    assert held(Devices((tiny, big)), row(1e6, 1e6), Workload()) == [("big", 0, 2)]


def test_activations_in_flight_count_against_memory() -> None:
    model = row(1e6, 1e6, trained=0.0, kept=100_000)
    home = device("home", memory=250_000)
    assert held(Devices((home,)), model, Workload()) == [("home", 0, 2)]
    # One micro-batch takes 201,000 bytes: without counting them, two in flight would seem to fit, and so would this.
    assert held(Devices((replace(home, memory=150_000),)), model, Workload()) == []


def test_both_pieces_of_a_u_count_against_one_memory() -> None:
    model = row(1e6, 1e6, 1e6, kept=0.0, crossing=0.0)
    home, other = device("home", memory=7_999), replace(device("other"), memory=4_000)
    # Each piece takes 4,000 bytes: home holds one, the other one, and nobody the third.
    assert plan(model, Devices((home, other)), Workload(), Objective.LATENCY) is None
    chain = plan(model, Devices((replace(home, memory=8_000), other)), Workload(), Objective.LATENCY)
    assert chain is not None
    assert sum(stage.memory for stage in chain.stages if stage.device.name == "home") == 8_000


def test_throughput_uses_devices_that_latency_leaves_out() -> None:
    pair = Devices((device("a"), device("b")))
    model, work = row(1e9, 1e9), Workload(in_flight=4)
    assert held(pair, model, work) == [("a", 0, 2)]
    assert [name for name, *_ in held(pair, model, work, Objective.THROUGHPUT)] == ["a", "b"]
    # With one at a time nothing is gained by a second device.
    assert held(pair, model, Workload(in_flight=1), Objective.THROUGHPUT) == [("a", 0, 2)]


HERE, THERE = device("here", memory=8_500, organisation="clinic"), device("there", organisation="cloud")


def releasing(*what: Crossing) -> Devices:
    return Devices((HERE, THERE), (UnsafeRelease("clinic", "cloud", frozenset(what), "made-up data"),))


def test_nothing_crosses_between_organisations_without_a_release() -> None:
    model = row(1e6, 1e6, 1e6)
    for work in (Workload(), Workload(train=False)):
        tight = Devices((replace(HERE, memory=work.memory(model, 0, 3) - 1), THERE))
        assert plan(model, tight, work, Objective.LATENCY) is None
        assert plan(model, replace(tight, devices=(tight.devices[0], replace(THERE, organisation="clinic"))), work,
                    Objective.LATENCY) is not None  # fmt: skip


def test_training_across_organisations_is_a_u_unless_labels_are_released() -> None:
    model = row(1e6, 1e6, 1e6, kept=0.0, crossing=0.0)
    work = Workload()
    assert held(releasing(Crossing.ACTIVATIONS), model, work) == []
    both = releasing(Crossing.ACTIVATIONS, Crossing.GRADIENTS)
    assert [name for name, *_ in held(both, model, work)] == ["here", "there", "here"]
    labels = releasing(Crossing.ACTIVATIONS, Crossing.LABELS)
    assert [name for name, *_ in held(labels, model, work)] == ["here", "there"]
    # Inference needs no gradients and no labels, and the answer may always come home.
    narrow = replace(HERE, memory=2_500)
    only = Devices((narrow, THERE), releasing(Crossing.ACTIVATIONS).releases)
    assert held(only, model, Workload(train=False))[1][0] == "there"


def test_a_release_is_for_one_owner_one_taker_and_what_it_names() -> None:
    priced = Release("clinic", "cloud", frozenset({Crossing.ACTIVATIONS}), clip=1.0, noise=2.0, most=1)
    devices = Devices((HERE, THERE, replace(THERE, name="third", organisation="lab")), (priced,))
    here, there, third = devices.devices
    assert devices.may_pass(Crossing.ACTIVATIONS, here, there)
    assert not devices.may_pass(Crossing.GRADIENTS, here, there)
    assert not devices.may_pass(Crossing.INPUTS, here, there)
    assert not devices.may_pass(Crossing.ACTIVATIONS, here, third)
    assert not devices.may_pass(Crossing.ACTIVATIONS, there, third), "at second hand it is still the clinic's"
    assert devices.may_pass(Crossing.ACTIVATIONS, third, here), "back to whose records they come from"
    turned = Devices((THERE, HERE), (priced,))
    assert not turned.may_pass(Crossing.ACTIVATIONS, THERE, HERE)


def test_alone_a_device_holds_the_whole_else_a_front_else_a_slice() -> None:
    model = row(1e6, 1e6, 1e6, kept=0.0, crossing=0.0)  # 4,000 bytes a segment in training
    work = Workload()
    kinds = {size: alone(model, device("d", memory=size), work) for size in (12_000, 11_999, 8_000, 7_999, 500, 10)}
    assert [part.kind for part in kinds.values()] == ["whole", "depth", "depth", "width", "width", "none"]
    assert kinds[11_999].end == "cut1", "the exit head counts as much as the last segment"
    assert kinds[7_999].ratio == 1 / 2
    assert kinds[500].ratio == 1 / 8
    assert kinds[10].memory == 0.0


def test_memory_counts_weights_gradients_optimiser_and_activations() -> None:
    model = Profile(
        (Segment(1.0, 1000.0, 50.0, 300.0, 80.0), Segment(1.0, 2000.0, 0.0, 700.0, 90.0)), (20.0, 40.0, 8.0), ("c",)
    )
    assert Workload(optimizer="sgd").memory(model, 0, 2) == 2 * 3000 + 50 + 20 + 1000
    assert Workload(optimizer="momentum").memory(model, 0, 2) == 3 * 3000 + 50 + 20 + 1000
    assert Workload(in_flight=3).memory(model, 1, 2) == 4 * 2000 + 3 * (40 + 700)
    assert Workload(train=False, in_flight=2).memory(model, 0, 2) == 3000 + 50 + 2 * 90
    assert Workload().memory(model, 1, 1) == 0


@pytest.mark.parametrize("name", ["cnn", "gpt", "tied_gpt", "resnet"])
def test_a_models_profile_is_its_analysis_added_up(name: str) -> None:
    model, inputs = made(name)
    analysis = analyse(trace(model, inputs), inputs)
    found = profile(analysis, find_cuts(analysis))
    assert sum(each.flops for each in found.segments) == analysis.flops
    assert sum(each.trained for each in found.segments) == 4 * analysis.parameters
    assert sum(each.kept for each in found.segments) == sum(node.kept for node in analysis.nodes)
    assert max(each.live for each in found.segments) == max(node.live for node in analysis.nodes)
    assert (found.crossing[0], found.crossing[-1]) == (analysis.input_bytes, analysis.output_bytes)
    # Where a parameter is used on both sides there is no boundary.
    assert len(found.segments) == (1 if name == "tied_gpt" else len(find_cuts(analysis)) + 1)


def test_a_profile_of_other_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="boundaries"):
        Profile((Segment(1.0, 1.0, 0.0, 1.0, 1.0),), (1.0,), ())
