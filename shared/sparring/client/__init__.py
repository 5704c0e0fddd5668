"""The SDK: orders that are not lost, questions that say as of when; nothing of NATS to know."""

from sparring.client.blocking import BlockingClient, connect
from sparring.client.orders import Sent, default_outbox
from sparring.client.reading import lane_of
from sparring.client.results import Client, Recording
from sparring.client.slots import SlotLost, SlotNotGranted, TrainingSlot
from sparring.client.work import NoEvidence, OwnTask, Submitted, TaskEnded

__all__ = [
    "BlockingClient",
    "Client",
    "NoEvidence",
    "OwnTask",
    "Recording",
    "Sent",
    "SlotLost",
    "SlotNotGranted",
    "Submitted",
    "TaskEnded",
    "TrainingSlot",
    "connect",
    "default_outbox",
    "lane_of",
]
