"""The artifact store as the loop sees it: what was put is there, by its hash."""

from __future__ import annotations

from sparring.errors import ArtifactMissing

SCHEME = "sim:"


class Store:
    """Contents are their hashes and sizes."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def put(self, sha256: str, size: int) -> str:
        self._held[sha256] = size
        return SCHEME + sha256

    async def digest(self, url: str) -> tuple[str, int]:
        """SHA-256 and bytes of what lies there. Raises ArtifactMissing."""
        sha256 = url.removeprefix(SCHEME)
        size = self._held.get(sha256)
        if size is None:
            raise ArtifactMissing(f"{url} is not in the store")
        return sha256, size

    def delete(self, url: str) -> None:
        self._held.pop(url.removeprefix(SCHEME), None)
