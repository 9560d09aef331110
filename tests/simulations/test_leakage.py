"""What `collegium plan --leakage` attacks, on which records, and what it says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from clients.training import GradientSource, plain_gradient
from privacy import command
from privacy.audit import schemas
from privacy.errors import ConfigError
from simulations.planning import disclosure, leakage, sample
from simulations.planning.leakage import Leakage, measure
from simulations.planning.model import with_records
from simulations.planning.sample import Sample, of_model, of_scenario
from simulations.scenario import load
from strategies import planner
from strategies.analysis import Analysis, analyse
from strategies.cuts import find_cuts
from strategies.devices import read_devices
from strategies.losses import record_losses
from strategies.planner import Objective, Workload
from strategies.task import Training
from strategies.tracing import trace

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
DEVICES = str(EXAMPLES / "devices-released.toml")
TRAINING = Training(rounds=1, local_steps=1, learning_rate=0.05, batch=20)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer records than a person gets, so that a test takes no seconds."""
    monkeypatch.setattr(leakage, "_OWN", 120)
    monkeypatch.setattr(leakage, "_ATTACKED", 60)
    monkeypatch.setattr(sample, "_MADE_UP", 600)


class Blind(nn.Module):
    """Passes on noise instead of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return make()


def analysed(model: nn.Module, inputs: Tensor) -> Analysis:
    return analyse(trace(model.train(), (inputs,)), (inputs,))


def measured(model: nn.Module, n_inputs: int = 12, *, gradients: bool = True) -> Leakage:
    inputs = torch.zeros(8, n_inputs)
    analysis = analysed(model, inputs)
    cuts = find_cuts(analysis)
    drawn = of_model(analysis, (inputs,))
    return measure(analysis, cuts, drawn, TRAINING, gradients=gradients, told=lambda _text: None)


def test_what_is_passed_on_is_recognised_and_noise_is_not() -> None:
    found = measured(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)))
    both = found.cuts["_0"]
    for attacked in (both.untrained, both.epoch):
        assert attacked.recognised == 1.0
        assert attacked.error < 1e-6 * found.guess
    found = measured(nn.Sequential(Blind(), nn.Linear(12, 3)))
    (blind,) = found.cuts.values()
    for attacked in (blind.untrained, blind.epoch):
        assert attacked.recognised <= 4 / 60
        assert attacked.error > 0.95 * found.guess


def test_the_gradients_are_those_of_each_record_in_the_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[npt.NDArray[np.float32]] = []

    def overheard(values: npt.NDArray[np.float32], _labels: npt.NDArray[np.float32]) -> float:
        seen.append(values)
        return 0.5

    monkeypatch.setattr(leakage, "norm_auc", overheard)
    monkeypatch.setattr(leakage, "_train", lambda *_: None)
    model = seeded(
        lambda: nn.Sequential(nn.Linear(12, 7), nn.BatchNorm1d(7), nn.Dropout(0.5), nn.ReLU(), nn.Linear(7, 3))
    )
    inputs = torch.zeros(8, 12)
    analysis = analysed(model, inputs)
    drawn = of_model(analysis, (inputs,))
    (cut,) = (cut for cut in find_cuts(analysis) if cut.node == "_0")
    measure(analysis, [cut], drawn, TRAINING, gradients=True, told=lambda _text: None)
    assert model.training, "the mode is what it was"

    model.eval()  # as in use: a record's gradient is its own
    crossed: list[Tensor] = []
    model.get_submodule("0").register_forward_hook(lambda _module, _inputs, output: crossed.append(output))
    for row in range(60):
        x, y = torch.from_numpy(drawn.held_out.x[row : row + 1]), torch.from_numpy(drawn.held_out.y[row : row + 1])
        loss = record_losses(model(x), y).sum()
        (expected,) = torch.autograd.grad(loss, crossed[-1])
        np.testing.assert_allclose(seen[0][row], expected[0].numpy(), rtol=1e-4, atol=1e-6)


def test_the_epoch_goes_once_through_the_records_and_changes_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def counted(*arguments: Any, **named: Any) -> GradientSource:
        source = plain_gradient(*arguments, **named)

        def gradient(model: nn.Module, step: int) -> None:
            steps.append(step)
            source(model, step)

        return gradient

    monkeypatch.setattr(leakage, "plain_gradient", counted)
    model = seeded(lambda: nn.Sequential(nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 3)))
    before = [each.detach().clone() for each in model.parameters()]
    told: list[str] = []
    inputs = torch.zeros(8, 12)
    analysis = analysed(model, inputs)
    drawn = of_model(analysis, (inputs,))
    assert (len(drawn.train), len(drawn.held_out)) == (480, 120)
    found = measure(analysis, find_cuts(analysis), drawn, TRAINING, gradients=True, told=told.append)
    assert (found.trained, found.own, found.attacked) == (480, 120, 60)
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert steps == list(range(480 // 20))
    assert told == [
        "attacking the cut after _0, untrained", "attacking the cut after _1, untrained", "training one epoch",
        "attacking the cut after _0, after one epoch", "attacking the cut after _1, after one epoch",
    ]  # fmt: skip
    for both in found.cuts.values():
        assert both.untrained != both.epoch
        assert both.untrained.cosine_auc is not None
        assert both.untrained.cosine_auc > 0.8
    guess = np.square(drawn.held_out.x[:60] - drawn.train.x[:120].mean(axis=0)).mean()
    assert found.guess == pytest.approx(float(guess), rel=1e-5)


def test_without_training_no_gradients_are_attacked() -> None:
    found = measured(nn.Sequential(nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 3)), gradients=False)
    assert {(both.epoch.norm_auc, both.epoch.cosine_auc) for both in found.cuts.values()} == {(None, None)}


def test_a_model_that_would_take_minutes_a_cut_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 3))
    monkeypatch.setattr(leakage, "_PRODUCTS", 100**2 * 12.1)
    assert measured(model).own == 100
    monkeypatch.setattr(leakage, "_PRODUCTS", 100**2 * 11.9)
    with pytest.raises(ConfigError, match="too large to attack every cut within seconds"):
        measured(model)


def test_public_records_are_used_and_a_studys_own_files_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = of_scenario(load("digits"), None)
    assert digits.provenance.startswith("Alpaydin and Kaynak, 1998")
    assert digits.provenance.endswith("; public, CC BY 4.0")
    assert (len(digits.train), digits.shape) == (1347, (64,))
    assert len(digits.held_out) == 450

    def read(*_arguments: object) -> None:
        raise AssertionError("rows of somebody were read")

    monkeypatch.setattr(sample, "load_sites", read)
    own = of_scenario(load(str(EXAMPLES / "own-data" / "clinics.toml")), None)
    assert own.provenance == "made up within the study's ranges: nobody's rows"
    assert set(np.unique(own.train.y)) == {0.0, 1.0}
    low, high = (bound(own.train.x.min(), own.train.x.max()) for bound in (min, max))
    assert -10 <= low < high <= 10


@pytest.mark.parametrize("made", [(torch.zeros(4, 3, dtype=torch.long),), (torch.zeros(4, 3), torch.zeros(4, 3))])
def test_what_cannot_be_made_up_is_refused(made: tuple[Tensor, ...]) -> None:
    analysis = analysed(nn.Linear(3, 2), torch.zeros(4, 3))
    with pytest.raises(ConfigError, match="one input of floating-point numbers"):
        of_model(analysis, made)
    words = analysed(nn.Linear(3, 2), torch.zeros(4, 5, 3))
    with pytest.raises(ConfigError, match="one row of logits"):
        of_model(words, (torch.zeros(4, 5, 3),))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaky_models.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def mlp():\n"
        "    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))\n"
        "    return model, torch.zeros(8, 1, 4, 4)\n"
        "def one():\n    return nn.Linear(4, 2), torch.zeros(8, 4)\n"
    )
    return tmp_path


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert command._outcome(["plan", *arguments, "--devices", DEVICES, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    schemas.check("plan-v1", result)
    return result


def test_the_figures_are_in_the_json_and_the_same_every_time(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here.exists()
    result = planned(capsys, "leaky_models:mlp", "--leakage")
    assert result["leakage"]["provenance"] == "made up, Gaussian with 32 factors: real ones may leak more"
    assert result["cuts"][0]["leakage"]["untrained"]["recognised"] == 1.0
    torch.rand(3)  # whatever drew random numbers before
    assert planned(capsys, "leaky_models:mlp", "--leakage") == result
    inference = planned(capsys, "leaky_models:mlp", "--leakage", "--inference")
    assert inference["cuts"][0]["leakage"]["epoch"]["norm_auc"] is None
    silent = planned(capsys, "leaky_models:mlp")
    assert silent["leakage"] is None
    assert all(cut["leakage"] is None for cut in silent["cuts"])
    without = {key: value for key, value in result.items() if key not in {"leakage", "cuts"}}
    assert without == {key: value for key, value in silent.items() if key not in {"leakage", "cuts"}}
    assert planned(capsys, "leaky_models:one", "--leakage")["leakage"] is None, "no cut, nothing to attack"


def test_the_sheet_has_a_row_a_cut_or_says_that_nothing_was_measured(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here.exists()
    assert command._outcome(["plan", "leaky_models:mlp", "--devices", DEVICES, "--leakage"]) == 0
    said = capsys.readouterr().out
    lines = said[said.index("Leakage at each cut") : said.index("Alone: ")].splitlines()
    rows = [line.split() for line in lines if line.startswith("  _")]
    assert [row[0] for row in rows] == ["_0", "_1", "_2"]
    assert all(len(row) == 9 for row in rows), "four pairs of figures"
    assert "Records: made up, Gaussian with 32 factors: real ones may leak more." in said
    assert "no bounds" in said
    assert command._outcome(["plan", "leaky_models:mlp", "--devices", DEVICES]) == 0
    said = capsys.readouterr().out
    assert "Leakage: not measured; --leakage attacks every cut." in said
    assert "Leakage at each cut" not in said


@pytest.mark.parametrize("train", [True, False])
def test_who_sees_what_follows_from_the_chain(train: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    analysis = analysed(model, torch.zeros(8, 4))
    profile = planner.profile(analysis, find_cuts(analysis))
    ward, server, cloud = read_devices(Path(DEVICES)).devices
    work = Workload(train=train)

    def hop(giver: Any, taker: Any, boundary: int) -> planner.Hop:
        return planner.Hop(giver, taker, boundary, (), 0.0, 0.0)

    hops = (hop(ward, server, 0), hop(server, cloud, 1), hop(cloud, ward, 3))
    chain = planner.Chain((), hops, 1.0, 1.0, 1)
    assert planner.plan(profile, read_devices(Path(DEVICES)), work, Objective.LATENCY) is not None
    seen = {
        (each["what"], each["at"], each["device"])
        for each in disclosure.sees(chain, "ward-pc", profile.nodes, train=train)
    }
    inputs = "inputs" if train else "queries"
    expected = {(inputs, "", "ward-pc"), (inputs, "", "server-room"), ("activations", "_0", "cloud-gpu")}
    if train:
        expected |= {("labels", "", "ward-pc"), ("labels", "", "cloud-gpu"), ("gradients", "_0", "server-room")}
    else:
        expected |= {("answers", "", "cloud-gpu")}
    assert seen == expected
    words = disclosure.seen_words(disclosure.sees(chain, "ward-pc", profile.nodes, train=train))
    assert f"{inputs} by ward-pc and server-room" in words


def test_a_scenarios_own_settings_train_it() -> None:
    analysis, drawn, training = with_records("hospitals-parts", train=True, blocks=())
    assert (training.batch, training.learning_rate) == (32, 0.1)
    assert isinstance(drawn, Sample)
    assert analysis.records == 32


@pytest.mark.soak
def test_the_page_shows_what_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    page = (EXAMPLES.parent / "how-to-plan.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    assert command._outcome(["plan", "digits", "--devices", DEVICES, "--leakage"]) == 0
    said = capsys.readouterr().out
    for text in (said, page):
        assert "guessing the mean record 0.293." in text
    shown, printed = (
        {row.split()[0]: row.replace(",", "").split()[1:] for row in text.splitlines() if row.startswith("  _")}
        for text in (each[each.index("Leakage at each cut") : each.index("rebuilt: mean")] for each in (page, said))
    )
    assert shown.keys() == printed.keys()
    for cut, figures in shown.items():
        np.testing.assert_allclose([float(each) for each in printed[cut]], [float(each) for each in figures], atol=0.05)
