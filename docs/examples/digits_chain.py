"""Trains a network for digits through two other processes, and compares it with the whole network in one place.

    python digits_chain.py FOLDER PLAN      as the site of FOLDER, by the plan.json of `collegium plan`

The pieces between are held by `collegium stage serve --model digits_chain:network`. See docs/how-to-joint.md.
"""
# ruff: noqa: INP001, T201 - a script for people, not part of a package

import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from clients.chain.home import Own
from clients.chain.installed import Installed
from clients.chain.opening import PeerDial, open_chain
from clients.chain.released import Releaser
from clients.chain.stage import Learning, Stage
from clients.channel.credentials import Identity
from clients.channel.dialler import Dialler
from clients.channel.limits import Limits
from privacy.store.log import Record
from privacy.store.site_folder import SiteFolder
from strategies.chain_plan import ChainPlan, StageSpec, parse_chain_plan
from strategies.losses import mean_loss

STEPS, BATCH, RATE = 50, 32, 0.2
PATIENCE = 60.0  # seconds that a slow machine may take for an answer


def network() -> tuple[nn.Module, Tensor]:
    """Returns the network, the same for everybody who calls this, and an example of its inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(512, 10)), torch.zeros(BATCH, 64)


def batches() -> list[tuple[Tensor, Tensor]]:
    """Returns what every step trains on: scikit-learn's digits, which are public."""
    digits = load_digits()
    x, y = torch.tensor(digits.data / 8 - 1, dtype=torch.float32), torch.tensor(digits.target, dtype=torch.float32)
    return [(x[start : start + BATCH], y[start : start + BATCH]) for start in range(0, STEPS * BATCH, BATCH)]


def main(folder: SiteFolder, plan: ChainPlan) -> None:
    """Trains through the chain and in one place, step by step with the same records."""
    torch.set_num_threads(1)
    whole, _ = network()
    optimizer, installed = torch.optim.SGD(whole.parameters(), lr=RATE), Installed.of_factory("digits_chain:network")

    def own(stage: StageSpec | None) -> Stage | None:
        return None if stage is None else Stage(installed.piece(stage, 0, train=True), Learning(plan.optimizer, RATE))

    def record(entry: Record) -> None:
        log.append([entry], folder.identity)

    log, channel, at_home = folder.log(), folder.settings.channel, Own(own(plan.front), own(plan.tail))
    # The releases of this plan are unsafe ones: nothing is debited, and the site's log says what left.
    releaser = Releaser(plan, payer=None, entropy=secrets.token_bytes, record=record)
    releaser.pay(STEPS)
    dialler = Dialler(Identity.of_folder(folder, lambda: datetime.now(UTC)), limits=Limits())
    dial, same = PeerDial(dialler, lambda: channel.peers if channel else {}), True
    terms = {"learning_rate": RATE, "steps": STEPS, "patience": PATIENCE}
    with open_chain(plan, dial, at_home, releaser, purpose="training", deadline=PATIENCE, **terms) as chain:
        for number, (x, y) in enumerate(batches(), start=1):
            through = chain.step(x, y)
            optimizer.zero_grad()
            loss = mean_loss(whole(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            same = same and through == loss.item()
            if number in {1, STEPS // 2, STEPS}:
                print(f"step {number:>2}: loss {through:.6f} through the chain, {loss.item():.6f} in one place")
    dialler.close()
    ends = {key: value for stage in at_home.stages for key, value in stage.state().items()}
    same = same and all((whole.state_dict()[key].numpy() == value).all() for key, value in ends.items())
    print(f"the losses of {STEPS} steps and the pieces at home are the same, bit for bit: {'yes' if same else 'NO'}")


if __name__ == "__main__":
    main(SiteFolder(Path(sys.argv[1])), parse_chain_plan(Path(sys.argv[2]).read_bytes()))
