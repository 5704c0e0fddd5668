"""The service `health` as data."""

from health.consumers import watch
from health.core.letter import LETTER, discard, record, redrive, report
from health.core.node import NODE, drain, forget, retire
from health.core.picture import HealthPicture
from health.core.plan import plan
from health.core.switch import CLUSTER, switch
from health.dead_letters import keep
from health.dead_letters import redrive as bring_redriven
from health.read_models.health import HEALTH
from health.read_models.recovery import RECOVERY
from health.reconciliation import reconcile
from health.settings import Settings
from health.teller import tell
from sparring.contracts.health import (
    DiscardDeadLetter,
    DrainNode,
    ForgetNode,
    RecordDeadLetter,
    RedriveDeadLetter,
    ReportRedriven,
    RetireNode,
    SwitchCluster,
)
from sparring.decider import Command
from sparring.service import Service

SERVICE = Service(
    name="health",
    settings=Settings,
    commands=[
        Command(DrainNode, NODE, drain),
        Command(RetireNode, NODE, retire),
        Command(ForgetNode, NODE, forget),
        Command(SwitchCluster, CLUSTER, switch, mints=True),
        Command(RecordDeadLetter, LETTER, record, mints=True),
        Command(RedriveDeadLetter, LETTER, redrive, mints=True),
        Command(ReportRedriven, LETTER, report),
        Command(DiscardDeadLetter, LETTER, discard, mints=True),
    ],
    picture=HealthPicture,
    plan=plan,
    readings=("tel.*.heartbeat", "tel.*.consumers"),
    read_models=[HEALTH, RECOVERY],
    workers=[keep, reconcile, bring_redriven, watch, tell],
)
