"""The service `training-slots` as data."""

from sparring.contracts.training_slots import (
    ClaimSlot,
    HoldLaneBack,
    LiftHoldBack,
    PreemptSlot,
    ReleaseSlot,
    RenewSlot,
)
from sparring.decider import Command
from sparring.service import Question, Service
from training_slots.core.decide import claim, preempt, release, renew
from training_slots.core.evolve import POOL
from training_slots.core.holds import hold_back, lift
from training_slots.core.plan import PoolPicture, plan
from training_slots.core.questions import HEARS, can_train, waits
from training_slots.read_models.slots import SLOTS
from training_slots.settings import Settings

SERVICE = Service(
    name="training-slots",
    settings=Settings,
    commands=[
        Command(ClaimSlot, POOL, claim, mints=True),
        Command(RenewSlot, POOL, renew),
        Command(ReleaseSlot, POOL, release),
        Command(PreemptSlot, POOL, preempt, mints=True),
        Command(LiftHoldBack, POOL, lift, mints=True),
        Command(HoldLaneBack, POOL, hold_back, mints=True),
    ],
    picture=PoolPicture,
    plan=plan,
    read_models=[SLOTS],
    questions={"can_train": Question(can_train, HEARS), "waits": Question(waits, HEARS)},
)
