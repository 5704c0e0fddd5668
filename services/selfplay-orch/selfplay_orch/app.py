"""The service `selfplay-orch` as data."""

from selfplay_orch.core.limits import BOOST, boost
from selfplay_orch.core.picture import WorkPicture
from selfplay_orch.core.plan import plan
from selfplay_orch.core.task import TASK, cancel, failed, finished, request, started
from selfplay_orch.read_models.tasks import TASKS
from selfplay_orch.settings import Settings
from sparring.contracts.selfplay_orch import (
    BoostLane,
    CancelTask,
    ReportTaskFailed,
    ReportTaskFinished,
    ReportTaskStarted,
    RequestTask,
)
from sparring.decider import Command
from sparring.service import Service

SERVICE = Service(
    name="selfplay-orch",
    settings=Settings,
    commands=[
        Command(RequestTask, TASK, request, mints=True),
        Command(ReportTaskStarted, TASK, started),
        Command(ReportTaskFinished, TASK, finished),
        Command(ReportTaskFailed, TASK, failed),
        Command(CancelTask, TASK, cancel),
        Command(BoostLane, BOOST, boost, mints=True),
    ],
    picture=WorkPicture,
    plan=plan,
    read_models=[TASKS],
)
