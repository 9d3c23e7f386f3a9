"""Which replica runs where: GPUs whole, in parts and several together, floors, reservations, fair shares and borrowing. Pure.

`allocate(facts, state, now)` is all of it; docs/allocation.md has the idea, the arithmetic and the seams to the autoscaler and
to Ray.
"""

from serving.allocation.allocate import allocate
from serving.allocation.check import BadInput
from serving.allocation.claim import HOUSE, Claim, Facts, Model, Reservation, Team
from serving.allocation.fleet import Kind, Node
from serving.allocation.plan import Plan, Refusal, Shortfall
from serving.allocation.reason import Reason
from serving.allocation.replica import Grade, Hold, Phase, Replica, State
from serving.allocation.shape import Need, Shape, legal_shapes

__all__ = [
    "HOUSE",
    "BadInput",
    "Claim",
    "Facts",
    "Grade",
    "Hold",
    "Kind",
    "Model",
    "Need",
    "Node",
    "Phase",
    "Plan",
    "Reason",
    "Refusal",
    "Replica",
    "Reservation",
    "Shape",
    "Shortfall",
    "State",
    "Team",
    "allocate",
    "legal_shapes",
]
