"""The service `selfplay-orch` as data."""

from selfplay_orch.core.limits import BOOST, boost
from selfplay_orch.core.picture import WorkPicture
from selfplay_orch.core.plan import plan
from selfplay_orch.core.questions import can_schedule, can_spawn, denials, estimate
from selfplay_orch.core.task import TASK, cancel, close_own, failed, finished, open_own, request, started
from selfplay_orch.read_models.tasks import TASKS
from selfplay_orch.settings import Settings
from sparring.contracts.selfplay_orch import (
    BoostLane,
    CancelTask,
    CloseTask,
    OpenTask,
    ReportTaskFailed,
    ReportTaskFinished,
    ReportTaskStarted,
    RequestTask,
)
from sparring.decider import Command
from sparring.service import Question, Service

SERVICE = Service(
    name="selfplay-orch",
    settings=Settings,
    commands=[
        Command(RequestTask, TASK, request, mints=True),
        Command(OpenTask, TASK, open_own, mints=True),
        Command(CloseTask, TASK, close_own, mints=True),
        Command(ReportTaskStarted, TASK, started),
        Command(ReportTaskFinished, TASK, finished),
        Command(ReportTaskFailed, TASK, failed),
        Command(CancelTask, TASK, cancel),
        Command(BoostLane, BOOST, boost, mints=True),
    ],
    picture=WorkPicture,
    plan=plan,
    readings=("tel.*.heartbeat",),
    read_models=[TASKS],
    questions={
        "can_spawn": Question(can_spawn),
        "can_schedule": Question(can_schedule),
        "estimate": Question(estimate),
        "denials": Question(denials),
    },
)
