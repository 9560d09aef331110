"""The ClientApp that ``flwr run`` loads: the site's app, with a partition number for an identity."""

from clients.app import build
from simulations.members import SimulatedMember

app = build(SimulatedMember())
