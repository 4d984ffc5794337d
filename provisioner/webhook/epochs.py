"""The highest epoch seen per cluster: an orchestrator that lost its lease must not act any more."""

from __future__ import annotations

from secbeat.store import Bucket, Conflict, Unavailable

_KEY = "epoch."


class Epochs:
    """Stored beside the jobs, so that a restart and a second provisioner know it too."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def admit(self, cluster_id: str, epoch: int) -> int | None:
        """None if ``epoch`` is not below the highest seen (and is stored if it is the highest), else the highest.

        Raises:
            Unavailable: the store did not answer; nothing may be accepted on this epoch.
        """
        key = _KEY + cluster_id
        while True:
            found = await self._bucket.get(key)
            seen = -1 if found is None else int(found.value)
            if epoch < seen:
                return seen
            if epoch == seen:
                return None
            value = str(epoch).encode()
            try:
                if found is None:
                    await self._bucket.create(key, value)
                else:
                    await self._bucket.update(key, value, found.revision)
            except Conflict:
                continue
            except Unavailable:
                stored = await self._bucket.get(key)
                if stored is None or int(stored.value) < epoch:
                    raise
            return None
