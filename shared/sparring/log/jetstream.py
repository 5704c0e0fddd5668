"""The log's home on a server: appends with expectations, direct reads of one entity, an ordered feed of everything."""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from sparring.errors import LogUnavailable, LostRace, RepeatedBatch
from sparring.log.feed import Feed
from sparring.log.interface import Outgoing, Raw, check_guards
from sparring.log.requests import Requests, publish
from sparring.streams import EVENTS

# 10164 is the same conflict on a replicated stream
LOST_RACE = {10071, 10164}
REPEATED = {10201}
LOAD_BATCH = 1000
# the server gives the last messages of at most 1,024 subjects at once
LASTS = 1000
# a server that looks for more of an entity opens every block behind its last message: some 10,000 messages each. Farther from
# the log's end than this it is asked for no more than there is; else a restarted service waited half a minute per entity at
# ten million facts, and so did every append meanwhile
NEAR_THE_END, END_KNOWN_S = 20_000, 5.0


def stamp(text: str) -> datetime:
    """A server's timestamp; it has nanoseconds, datetime keeps microseconds."""
    body = text.rstrip("Z")
    whole, _, fraction = body.partition(".")
    return datetime.fromisoformat(f"{whole}.{(fraction + '000000')[:6]}+00:00")


async def born(nc: Client) -> str:
    """Which log this is: the moment at which its stream was made. Raises NotFoundError where no service ever ran."""
    return str((await nc.jetstream(timeout=5).stream_info(EVENTS)).created)


class _TooManySubjects(LogUnavailable):
    """The server refused: the pattern matches more subjects than it answers for at once."""


class JetStreamLog:
    """The stream `EVENTS` (or another one of the same shape)."""

    def __init__(self, nc: Client, *, stream: str = EVENTS, timeout_s: float = 5.0) -> None:
        self._nc, self._stream, self._timeout = nc, stream, timeout_s
        # the log's end as it was last known, and when
        self._end, self._end_at = 0, -math.inf

    async def append(self, batch: Sequence[Outgoing], batch_id: str) -> list[int]:
        if not batch:
            return []
        check_guards(batch)
        last = len(batch)
        for number, message in enumerate(batch, start=1):
            headers = {**message.headers, "Nats-Expected-Stream": self._stream}
            if message.expect is not None:
                headers["Nats-Expected-Last-Subject-Sequence"] = str(message.expect.sequence)
                headers["Nats-Expected-Last-Subject-Sequence-Subject"] = message.expect.pattern
            if last > 1:
                headers |= {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)}
            if number < last:
                await publish(self._nc, message.subject, message.body, "", headers)
                continue
            if last > 1:
                headers["Nats-Batch-Commit"] = "1"
            answer = await self._request(message.subject, message.body, headers)
        return self._sequences(answer, batch)

    async def _request(self, subject: str, body: bytes, headers: dict[str, str] | None) -> dict[str, Any]:
        try:
            answer = await Requests.of(self._nc).ask(self._nc, subject, body, headers, self._timeout)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise LogUnavailable(f"no answer for {subject}: {error!r}") from error
        if not answer.data:
            raise LogUnavailable(f"{subject}: {answer.description or 'an empty answer'}")
        return dict(json.loads(answer.data))

    def _sequences(self, answer: dict[str, Any], batch: Sequence[Outgoing]) -> list[int]:
        error = answer.get("error")
        if error:
            code = error.get("err_code", 0)
            guard = next((m.expect for m in batch if m.expect is not None), None)
            if code in LOST_RACE:
                raise LostRace(guard.pattern if guard else batch[0].subject, guard.sequence if guard else 0)
            if code in REPEATED:
                raise RepeatedBatch(str(error.get("description")))
            raise LogUnavailable(f"{batch[0].subject}: {error.get('description')} ({code})")
        if answer.get("duplicate"):
            raise RepeatedBatch(f"{batch[0].subject} was appended before")
        end = self._ends_at(int(answer["seq"]))
        return list(range(end - len(batch) + 1, end + 1))

    async def load(self, pattern: str, after: int = 0) -> list[Raw]:
        newest = await self._newest(pattern)
        if newest is None or newest.sequence <= after:
            return []
        if newest.sequence == after + 1:
            return [newest]
        try:
            near = await self._near_the_end(newest.sequence)
            count = await self._count(pattern) if after == 0 and not near else None
        except LogUnavailable:
            # only the leader knows; a replica answers without one, however long it looks
            near, count = True, None
        if near:
            return await self._scanned(pattern, after)
        return await self._stepped(pattern, after, newest.sequence, count or 0)

    async def _near_the_end(self, sequence: int) -> bool:
        if self._end - sequence <= NEAR_THE_END and time.monotonic() - self._end_at > END_KNOWN_S:
            await self.end()
        return self._end - sequence <= NEAR_THE_END

    def _ends_at(self, sequence: int) -> int:
        self._end, self._end_at = sequence, time.monotonic()
        return sequence

    async def _newest(self, pattern: str) -> Raw | None:
        """The last message on the pattern that a replica has: found by the server's index of subjects, whatever its age."""
        return await self._one({"last_by_subj": pattern})

    async def _one(self, query: dict[str, Any]) -> Raw | None:
        """One message from a replica. A batch of one costs more: the server counts how many follow it."""
        body = json.dumps(query).encode()
        try:
            answer = await self._nc.request(f"$JS.API.DIRECT.GET.{self._stream}", body, timeout=self._timeout)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise LogUnavailable(f"{query} could not be read: {error!r}") from error
        headers = answer.headers or {}
        status = headers.get("Status")
        if status == "404":
            return None
        if status is not None:
            raise LogUnavailable(f"{query}: {status} {headers.get('Description', '')}")
        return _direct(answer, headers)

    async def _count(self, pattern: str) -> int | None:
        """How many messages the pattern has; None for more subjects than the server lists at once."""
        subjects, total = await self._listed(pattern)
        return None if total > len(subjects) else sum(subjects.values())

    async def _listed(self, pattern: str, offset: int = 0) -> tuple[dict[str, int], int]:
        """Messages per subject, of at most 100,000 subjects, and how many subjects the pattern matches."""
        answer = await self._info({"subjects_filter": pattern, "offset": offset})
        return dict(answer["state"].get("subjects") or {}), int(answer.get("total", 0))

    async def _subjects(self, pattern: str) -> list[str]:
        """Every subject that the pattern matches, page by page."""
        found: list[str] = []
        while True:
            page, total = await self._listed(pattern, len(found))
            found += page
            if not page or len(found) >= total:
                return found

    async def _scanned(self, pattern: str, after: int) -> list[Raw]:
        """Batch by batch, until the server has looked through everything."""
        found: list[Raw] = []
        while True:
            query = {"seq": (found[-1].sequence if found else after) + 1, "batch": LOAD_BATCH, "next_by_subj": pattern}
            part, more = await self._direct_get(query)
            found += part
            if not more:
                return found

    async def _stepped(self, pattern: str, after: int, last: int, count: int) -> list[Raw]:
        """Up to the sequence `last`: `count` from the first one on, then one at a time; never more than there are."""
        found: list[Raw] = []
        while not found or found[-1].sequence < last:
            query = {"seq": (found[-1].sequence if found else after) + 1, "next_by_subj": pattern}
            wanted = min(LOAD_BATCH, count - len(found))
            part = (await self._direct_get(query | {"batch": wanted}))[0] if wanted > 0 else [await self._one(query)]
            known = [raw for raw in part if raw is not None]
            if not known:
                # a replica that lags behind the one that knew of the last message
                break
            found += known
        return found

    async def last_of_each(self, pattern: str) -> list[Raw]:
        """The last message of every subject that the pattern matches, in order, however many there are."""
        try:
            found, _ = await self._direct_get({"multi_last": [pattern]})
        except _TooManySubjects:
            # by their names: a consumer for it would stop at every message that aged out meanwhile, as if that were the end
            names, found = await self._subjects(pattern), []
            for first in range(0, len(names), LASTS):
                found += (await self._direct_get({"multi_last": names[first : first + LASTS]}))[0]
            found.sort(key=lambda raw: raw.sequence)
        return found

    async def _direct_get(self, query: dict[str, Any]) -> tuple[list[Raw], bool]:
        inbox = self._nc.new_inbox()
        subscription = await self._nc.subscribe(inbox)
        found: list[Raw] = []
        try:
            await self._nc.publish(f"$JS.API.DIRECT.GET.{self._stream}", json.dumps(query).encode(), reply=inbox)
            while True:
                message = await subscription.next_msg(timeout=self._timeout)
                headers = message.headers or {}
                status = headers.get("Status")
                if status == "404":
                    return found, False
                if status == "204":
                    return found, int(headers.get("Nats-Num-Pending", "0")) > 0
                if status is not None:
                    refused = _TooManySubjects if status == "413" else LogUnavailable
                    raise refused(f"{query}: {status} {headers.get('Description', '')}")
                found.append(_direct(message, headers))
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise LogUnavailable(f"{query} could not be read: {error!r}") from error
        finally:
            if not self._nc.is_closed:
                await subscription.unsubscribe()

    async def last(self, pattern: str) -> int:
        query = json.dumps({"last_by_subj": pattern}).encode()
        answer = await self._request(f"$JS.API.STREAM.MSG.GET.{self._stream}", query, None)
        error = answer.get("error")
        if error is None:
            return int(answer["message"]["seq"])
        if error.get("err_code") == 10037:
            return 0
        raise LogUnavailable(f"{pattern}: {error.get('description')}")

    async def get(self, sequence: int) -> Raw | None:
        """The first message at or after the sequence."""
        return await self._one({"seq": sequence, "next_by_subj": ">"})

    async def first_since(self, moment: datetime) -> int | None:
        """The sequence of the first message stored at or after the moment."""
        start = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        found, _ = await self._direct_get({"start_time": start, "next_by_subj": ">", "batch": 1})
        return found[0].sequence if found else None

    async def end(self) -> int:
        return self._ends_at(int((await self._state())["last_seq"]))

    async def begin(self) -> int:
        """The sequence before the first message that is still there: up to it the log was purged."""
        return max(0, int((await self._state())["first_seq"]) - 1)

    async def now(self) -> datetime:
        """What time it is where messages are stamped."""
        return stamp(str((await self._info())["ts"]))

    async def _state(self) -> dict[str, Any]:
        return dict((await self._info())["state"])

    async def _info(self, query: dict[str, Any] | None = None) -> dict[str, Any]:
        body = json.dumps(query).encode() if query else b""
        answer: dict[str, Any] = await self._request(f"$JS.API.STREAM.INFO.{self._stream}", body, None)
        if "error" in answer:
            raise LogUnavailable(f"stream {self._stream}: {answer['error'].get('description')}")
        return answer

    async def follow(self, after: int, filters: Sequence[str] = ()) -> AsyncIterator[list[Raw]]:
        feed = Feed(self._nc, self._stream, after, filters)
        try:
            async for batch in feed.batches():
                yield batch
        finally:
            await feed.close()


def _direct(message: Msg, headers: dict[str, str]) -> Raw:
    kept = {name: value for name, value in headers.items() if name not in ("Nats-Stream", "Nats-Num-Pending")}
    return Raw(
        sequence=int(kept.pop("Nats-Sequence")),
        at=stamp(kept.pop("Nats-Time-Stamp")),
        subject=kept.pop("Nats-Subject"),
        headers=kept,
        body=message.data,
    )
