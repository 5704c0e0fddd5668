"""A log of any length: batches of games on their way, with the bodies and headers that the product writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from nats.aio.client import Client

from sparring.contracts.base import Fact
from sparring.contracts.sync import BatchAdmitted, BatchRetired, BatchStored, GamesRecorded, TransferGranted
from sparring.envelope import Envelope, encode
from sparring.schema_files import sample_path
from sparring.testing import at

BATCH = 1_000
ON_THEIR_WAY = (GamesRecorded, TransferGranted, BatchStored, BatchAdmitted)
TO_THE_END = (*ON_THEIR_WAY, BatchRetired)


def sample(cls: type[Fact]) -> Fact:
    return cls.model_validate_json(sample_path(cls).read_text())


def messages(
    begin: int, end: int, kinds: Sequence[type[Fact]] = ON_THEIR_WAY
) -> Iterator[tuple[str, dict[str, str], bytes]]:
    """Facts number `begin` to `end`, one of each kind for each batch: recorded, granted, stored, admitted, retired.

    The samples' bodies with the batch's own id written in: a million models would take minutes to make.
    """
    parts = []
    for cls in kinds:
        own = {"lane": "hex5_2p", "games": 30} if cls in (GamesRecorded, BatchAdmitted, BatchRetired) else {}
        fact = sample(cls).model_copy(update={"batch": "0batch0"} | own)
        trace = f"00-{'a' * 32}-{'b' * 16}-01"
        parts.append(encode(fact, Envelope("0id0", "sync/0", at(0), "0order0", "0order0", "hex5_2p-1", trace)))
    for number in range(begin, end):
        subject, headers, body = parts[number % len(kinds)]
        batch = f"t{number // len(kinds)}-1"
        own = {
            "ce-id": f"f{number:035}",
            "Nats-Msg-Id": f"f{number:035}",
            "ce-subject": batch,
            "Sparring-Order": f"o{number:035}",
        }
        yield subject.replace("0batch0", batch), headers | own, body.replace(b"0batch0", batch.encode())


async def fill(nc: Client, begin: int, end: int, kinds: Sequence[type[Fact]] = ON_THEIR_WAY) -> None:
    """Atomic batches of a thousand: the fastest way in. Both numbers are multiples of a thousand."""
    number = 0
    for subject, headers, body in messages(begin, end, kinds):
        number += 1
        place = (number - 1) % BATCH + 1
        more = {"Nats-Batch-Id": f"fill-{begin + number - place}", "Nats-Batch-Sequence": str(place)}
        if place < BATCH:
            await nc.publish(subject, body, headers=headers | more)
            continue
        commit = headers | more | {"Nats-Batch-Commit": "1"}
        answer = json.loads((await nc.request(subject, body, headers=commit, timeout=60)).data)
        assert "error" not in answer, answer
