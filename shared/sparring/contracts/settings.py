"""The settings that a service runs under, as a fact of its own: decisions name the hash."""

from __future__ import annotations

from pydantic import create_model

from sparring.contracts.base import Fact, Json, Name

OWNERS = ("health", "lifecycle", "pipeline", "selfplay-orch", "sync", "training-slots")


def settings_adopted(owner: str) -> type[Fact]:
    """The fact of one owner; a service of a user's own declares its own."""
    return create_model(
        "SettingsAdopted",
        __base__=Fact,
        __module__=__name__,
        __cls_kwargs__={"owner": owner, "entity": "settings", "key": "service"},
        __doc__="The service runs under these values; decisions name the hash.",
        service=(Name, ...),
        hash=(Name, ...),
        build=(Name, ...),
        values=(Json, ...),
    )


SETTINGS_ADOPTED: dict[str, type[Fact]] = {owner: settings_adopted(owner) for owner in OWNERS}
