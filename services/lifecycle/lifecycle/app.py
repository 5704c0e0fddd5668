"""The service `lifecycle` as data."""

from lifecycle.core.by_hand import promote, reject
from lifecycle.core.decide import abandon, close, record, register, roll_back
from lifecycle.core.evolve import LANE
from lifecycle.core.plan import ModelsPicture, plan
from lifecycle.read_models.models import MODELS
from lifecycle.settings import Settings
from sparring.contracts.lifecycle import (
    AbandonMatch,
    CloseGate,
    PromoteModel,
    RecordMatch,
    RegisterModel,
    RejectModel,
    RollBack,
)
from sparring.decider import Command
from sparring.service import Service

SERVICE = Service(
    name="lifecycle",
    settings=Settings,
    commands=[
        Command(RegisterModel, LANE, register, mints=True),
        Command(RecordMatch, LANE, record),
        Command(AbandonMatch, LANE, abandon),
        Command(CloseGate, LANE, close),
        Command(PromoteModel, LANE, promote),
        Command(RejectModel, LANE, reject),
        Command(RollBack, LANE, roll_back),
    ],
    picture=ModelsPicture,
    plan=plan,
    read_models=[MODELS],
)
