"""The service `sync` as data."""

from sparring.contracts.sync import RecordGames, ReportStored, ReportTransferFailed, SealDataset, SyncNow
from sparring.decider import Command
from sparring.service import Question, Service
from sync.core.batch import BATCH, failed, hasten, record, stored
from sync.core.dataset import DATASET, seal
from sync.core.picture import CustodyPicture
from sync.core.plan import plan
from sync.core.questions import recommendations
from sync.read_models.custody import CUSTODY
from sync.settings import Settings
from sync.workers import delete_retired, digest_of, reached, sweep_half_uploads

SERVICE = Service(
    name="sync",
    settings=Settings,
    commands=[
        Command(RecordGames, BATCH, record, mints=True, gather=digest_of),
        Command(ReportStored, BATCH, stored, gather=digest_of),
        Command(ReportTransferFailed, BATCH, failed),
        Command(SyncNow, BATCH, hasten),
        Command(SealDataset, DATASET, seal, mints=True, gather=reached),
    ],
    picture=CustodyPicture,
    plan=plan,
    read_models=[CUSTODY],
    workers=[delete_retired, sweep_half_uploads],
    questions={"recommendations": Question(recommendations)},
)
