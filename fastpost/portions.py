"""Files for several processes, cut from one walk.

Everybody gets a share of the first files, so that few large ones are spread from the beginning. After that a process
beside the first one gets more only while it pays: handing a small file over costs as much as a tenth of uploading it,
and where the server has the other cores one process more only takes time from it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastpost.cores import Room
    from fastpost.sources import Batch, Upload

#: Files of a portion: a message costs some 100 µs on both sides, and what one process has is kept from the others.
_MOST: Final = 128
#: Octets of a portion; of small files the number decides.
_OCTETS: Final = 64 * 2**20
#: Files of a portion for a process that is alone: a whole batch.
_ALL: Final = 2**20
#: Mean octets of a file from which handing it over costs next to nothing, beside uploading it.
_LARGE: Final = 64 * 2**10
#: The part of a core that one more process must find idle, with small files: then it brings more than it costs.
_IDLE: Final = 0.6
#: With less than this idle, a process is one too many when others leave it less than the part above.
_BUSY: Final = 0.2


class Portions:
    """Cuts batches into portions; each process's thread takes from it. Process 0 is the one that walks.

    Args:
        batches: the walk, iterated in whichever thread finds nothing left, never in two at a time.
        processes: how many will ask.
        arrived: called in that thread with each batch; returns what of it is to be uploaded.
    """

    def __init__(self, batches: Iterable[Batch], processes: int, arrived: Callable[[Batch], list[Upload]]) -> None:
        self._batches = iter(batches)
        self._processes = processes
        self._arrived = arrived
        #: In reverse: the next ones are at its end.
        self._left: list[Upload] = []
        #: First portions that their processes have not asked for yet, and who has none yet.
        self._kept: dict[int, list[Upload]] = {}
        self._owed = list(range(processes))
        self._gone: set[int] = set()
        #: Processes beside the first one that get more.
        self._welcome = 0
        self._most = _MOST
        self._walking = self._ended = self._stopped = False
        #: Guards all of that; never held during the walk, which may wait for a disk.
        self._news = threading.Condition()

    def take(self, process: int) -> list[Upload] | None:
        """Return the next uploads for a process, once there are some for it; None when there are no more.

        Raises what the walk raises.
        """
        while True:
            with self._news:
                self._news.wait_for(lambda: self._has_news(process))
                if self._stopped:
                    return None
                if (kept := self._kept_for(process)) is not None:
                    self._news.notify_all()
                    return self._kept.pop(kept)
                if self._left:
                    return self._cut(self._most)
                if self._ended:
                    return None
                self._walking = True
            self._walk_on()

    def judge(self, mean: float | None, room: Room) -> None:
        """Decide how many processes get more, by what was measured lately.

        Args:
            mean: octets of an uploaded file; None: none has arrived in all the time.
            room: what of the cores others leave to the run.
        """
        with self._news:
            if mean is None or mean >= _LARGE:
                self._welcome = self._processes - 1
            elif room.idle >= _IDLE:
                self._welcome = min(self._welcome + 1, self._processes - 1)
            elif room.idle < _BUSY and room.left < self._welcome + _IDLE:
                self._welcome = max(self._welcome - 1, 0)
            # What nobody else waits for needs no small portions.
            self._most = int(max(min(_OCTETS / (mean or 1), _MOST), 1)) if self._welcome else _ALL
            self._news.notify_all()

    def leave(self, process: int) -> None:
        """A process is gone: what was kept for it is for the first one."""
        with self._news:
            self._gone.add(process)
            self._news.notify_all()

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._news:
            self._stopped = True
            self._news.notify_all()

    def _has_news(self, process: int) -> bool:
        if self._stopped or self._kept_for(process) is not None:
            return True
        if self._ended:
            # The first one stays until the others have what was kept for them, or are gone.
            return process > 0 or not self._kept
        return (process <= self._welcome or process in self._owed) and (bool(self._left) or not self._walking)

    def _kept_for(self, process: int) -> int | None:
        orphans = self._gone if process == 0 else ()
        return next((each for each in (process, *orphans) if each in self._kept), None)

    def _cut(self, most: int) -> list[Upload]:
        portion = self._left[: -most - 1 : -1]
        del self._left[-most:]
        return portion

    def _walk_on(self) -> None:
        uploads = None
        try:
            batch = next(self._batches, None)
            if batch is not None:
                uploads = self._arrived(batch)
        finally:
            with self._news:
                self._walking = False
                self._ended = uploads is None
                self._left = (uploads or [])[::-1]
                self._keep_first_portions()
                self._news.notify_all()

    def _keep_first_portions(self) -> None:
        share = max(min(_MOST, -(-len(self._left) // self._processes)), 1)
        while self._owed and self._left:
            self._kept[self._owed.pop(0)] = self._cut(share)
