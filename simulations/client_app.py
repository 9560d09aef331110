"""The ClientApp that ``flwr run`` loads: the site's app, with a partition number for an identity."""

from simulations.members import SimulatedMember
from simulations.residents import Courier

app = Courier(SimulatedMember())
