"""Questions to a service's own rules, answered without the service: whoever asks folds its picture from the log.

The picture is the one that the planner decides on, so `can_spawn` and the placement say the same. A picture that was
folded once is kept in the cache folder, and the next question goes on from there.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparring import __version__, clock
from sparring.catalogue import services
from sparring.contracts import fingerprint
from sparring.decider import Context, Picture, Reading
from sparring.errors import BadInput, CannotAnswer
from sparring.hearing import NoPicture, heard
from sparring.log.interface import Raw, until
from sparring.place import cache_folder
from sparring.reader import Reader
from sparring.service import Question, Service, ServiceSettings
from sparring.subjects import Ref

KEEP_PICTURES = 2
KEEP_AFTER = 300


async def ask(reader: Reader, service: str, question: str, **asked: Any) -> Any:
    """The service's answer as of the reader's moment; of a past one no readings are kept.

    Raises BadInput for what does not exist, CannotAnswer when nobody can tell.
    """
    one, wanted = _named(service, question)
    return wanted.answer(await context_of(reader, one, hears=wanted.hears), **asked)


async def context_of(reader: Reader, service: Service, *, hears: Sequence[str] = ()) -> Context:
    """What a decision of the service would look at, as of the reader's moment; `hears` narrows what is folded.

    Raises CannotAnswer when the service never ran on this log.
    """
    settings = await _settings(reader, service)
    picture = await _picture(reader, service, hears)
    readings: Mapping[str, Reading] = await reader.readings()
    now = reader.as_of.at if reader.past else clock.now()
    if now is None:
        raise CannotAnswer(f"{service.name} has said nothing yet as of {reader.projection.position}")
    return Context(
        now=now, settings=settings, settings_hash=settings.fingerprint(), picture=picture,
        read_to=reader.projection.position, readings=readings,
    )  # fmt: skip


def _named(service: str, question: str) -> tuple[Service, Question]:
    found = next((one for one in services() if one.name == service), None)
    if found is None:
        raise CannotAnswer(f"{service} is not installed here, and only its rules can answer; install it")
    if question not in found.questions:
        raise BadInput(f"{service} can't be asked {question!r}; there are: {', '.join(found.questions) or 'none'}")
    return found, found.questions[question]


async def _settings(reader: Reader, service: Service) -> ServiceSettings:
    """The numbers that the service ran under at that moment."""
    pattern = Ref(service.name, "settings", service.name).pattern
    found = [raw for raw in await reader.log.load(pattern) if raw.sequence <= reader.projection.position]
    adopted = heard(found[-1]) if found else None
    values = getattr(adopted.fact, "values", None) if adopted is not None else None
    if values is None:
        raise CannotAnswer(
            f"{service.name} has never run on this log as of {reader.projection.position}: nobody knows its limits; "
            "start it with `spar up`"
        )
    return service.settings.model_validate(values)


async def _picture(reader: Reader, service: Service, hears: Sequence[str]) -> Picture:
    if service.picture is None:
        return NoPicture()
    target = reader.projection.position
    if hears:
        picture = service.picture()
        raws = [raw for pattern in hears for raw in await reader.log.load(pattern)]
        _take(picture, sorted((raw for raw in raws if raw.sequence <= target), key=lambda raw: raw.sequence))
        return picture
    folder = cache_folder() / "pictures"
    identity = await reader.identity()
    picture, position = _restored(folder, service, identity, target)
    async for batch in until(reader.log, target, position):
        _take(picture, batch)
    if target - position >= KEEP_AFTER:
        _keep(folder, service, identity, target, picture)
    return picture


def _take(picture: Picture, raws: Sequence[Raw]) -> None:
    for raw in raws:
        one = heard(raw)
        if one is not None:
            picture.apply(one)


def _stem(service: Service, identity: str) -> str:
    return f"{service.name}-{identity}-{__version__}-{fingerprint()}"


def _kept(folder: Path, service: Service, identity: str) -> list[tuple[int, Path]]:
    found = []
    for file in folder.glob(f"{_stem(service, identity)}-*.json") if folder.exists() else ():
        with contextlib.suppress(ValueError):
            found.append((int(file.stem.rpartition("-")[2]), file))
    return sorted(found)


def _restored(folder: Path, service: Service, identity: str, target: int) -> tuple[Picture, int]:
    assert service.picture is not None
    for position, file in reversed(_kept(folder, service, identity)):
        if position <= target:
            # a copy that another command replaces in this moment, or of another build, is folded anew
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                picture = service.picture()
                picture.load(json.loads(file.read_text()))
                return picture, position
    return service.picture(), 0


def _keep(folder: Path, service: Service, identity: str, position: int, picture: Picture) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{os.getpid()}.tmp"
    draft.write_text(picture.text())
    os.replace(draft, folder / f"{_stem(service, identity)}-{position}.json")
    for _, old in _kept(folder, service, identity)[:-KEEP_PICTURES]:
        old.unlink(missing_ok=True)
