"""Files for several processes, cut from one walk.

All go to the first process, which walks, until that one is busy and a core is idle: handing a file over costs as much
as a tenth of uploading a small one, and two processes that share two cores with the server are slower than one.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastpost.sources import Batch, Upload

#: Files of a portion: a message costs some 100 µs on both sides, and what one process has is kept from the others.
_MOST: Final = 128
#: Octets of a portion; of small files the number decides.
_OCTETS: Final = 64 * 2**20
#: Files of a portion for a process that is alone: a whole batch.
_ALL: Final = 2**20
#: Mean octets of a file from which handing it over costs next to nothing, beside uploading it.
_MEDIUM: Final = 64 * 2**10
#: Octets that the first process has for itself, at least, where files are set aside for those that may join: so many
#: it sends until it is known who joins, and those are there.
_ENOUGH: Final = 512 * 2**20
#: The part of a core that one more process must find idle, and the part that the first one must use: then it brings
#: more than it costs. Who waits for a server that is slow, or far away, needs no second one to wait.
_IDLE: Final = 0.6
_BUSY: Final = 0.7
#: The part that must be idle where huge files over TLS are set aside: those cost nothing to hand over.
_IDLE_FOR_HUGE: Final = 0.5
#: Looks in a row that must find it; where huge files are set aside one is enough that finds so much idle.
_LOOKS: Final = 2
_CLEARLY_IDLE: Final = 0.7
#: Files of the first batch whose sizes are looked at.
_SAMPLE: Final = 64


class Portions:
    """Cuts batches into portions; each process's thread takes from it. Process 0 is the one that walks.

    Args:
        batches: the walk, iterated in whichever thread finds nothing left, never in two at a time.
        processes: how many will ask.
        arrived: called in that thread with each batch; returns what of it is to be uploaded.
        secure: they go over TLS.
    """

    def __init__(
        self,
        batches: Iterable[Batch],
        processes: int,
        arrived: Callable[[Batch], list[Upload]],
        *,
        secure: bool,
    ) -> None:
        self._batches = iter(batches)
        self._processes = processes
        self._arrived = arrived
        self._secure = secure
        #: In reverse: the next ones are at its end.
        self._left: list[Upload] = []
        #: First portions that their processes have not asked for yet, and who has none yet.
        self._kept: dict[int, list[Upload]] = {}
        self._owed = list(range(processes))
        self._gone: set[int] = set()
        self._begun = False
        #: Processes beside the first one that get something.
        self.welcome = 0
        self._most = _ALL
        #: Set aside as long as it is not known who joins: how many are to be, and those that are, in reverse.
        self._may_set_aside = True
        self._to_set_aside = 0
        self._aside: list[Upload] = []
        self._idle_looks = 0
        self._walking = self._ended = self._stopped = False
        #: Guards all of that; never held during the walk, which may wait for a disk.
        self._lock = threading.Lock()
        #: One each: to wake a thread that finds nothing takes the interpreter's lock from the one that uploads.
        self._news = [threading.Condition(self._lock) for _ in range(processes)]

    def take(self, process: int) -> list[Upload] | None:
        """Return the next uploads for a process, once there are some for it; None when there are no more.

        Raises what the walk raises.
        """
        while True:
            with self._lock:
                self._news[process].wait_for(lambda: self._has_news(process))
                if self._stopped or process in self._gone:
                    return None
                if (kept := self._kept_for(process)) is not None:
                    portion = self._kept.pop(kept)
                    self._tell_news()
                    return portion
                if self._left:
                    return self._cut(self._most)
                if self._ended:
                    return None
                self._walking = True
            self._walk_on()

    def wait(self, process: int) -> bool:
        """Wait until there is something for a process; False when there is nothing more."""
        with self._lock:
            self._news[process].wait_for(lambda: self._has_news(process))
            more = bool(self._left or self._aside) or not self._ended or self._kept_for(process) is not None
            return more and not self._stopped

    def worth(self, idle: float, busy: float) -> int:
        """Return how many processes beside the first one are worth having, as it seems now; never fewer than there are.

        Args:
            idle: cores that were idle since the last call.
            busy: part of a core that the first process's loop used since then.
        """
        least = _IDLE_FOR_HUGE if self._aside else _IDLE
        looks = 1 if self._aside and idle >= _CLEARLY_IDLE else _LOOKS
        self._idle_looks = self._idle_looks + 1 if idle >= least and busy >= _BUSY else 0
        if not self._idle_looks:
            self.set_nothing_aside()
        return min(self.welcome + (self._idle_looks >= looks), self._processes - 1)

    def set_nothing_aside(self) -> None:
        """The first process has what was set aside, or still would be."""
        with self._lock:
            self._may_set_aside = False
            self._left[:0] = self._aside
            self._aside.clear()
            self._tell_news()

    @property
    def is_handed_out(self) -> bool:
        """True once there is nothing for anybody who might still join."""
        with self._lock:
            return self._ended and not self._left and not self._aside

    def admit(self, number: int, mean: float | None) -> None:
        """Have so many processes beside the first one get files, in portions that befit their size (`worth`)."""
        with self._lock:
            if number > self.welcome:
                self._idle_looks = 0
            for process in range(self.welcome + 1, number + 1):
                self._keep_what_was_set_aside(process)
            self.welcome = number
            # What nobody else waits for needs no small portions; what the first batch told holds until more is known.
            if number or mean is not None:
                self._most = _most(mean) if number or (mean or 0) >= _MEDIUM else _ALL
            self._tell_news()

    def leave(self, process: int) -> None:
        """A process is gone: nothing more is taken for it, and what was kept for it is for the first one."""
        with self._lock:
            self._gone.add(process)
            self._tell_news()

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._lock:
            self._stopped = True
            self._tell_news()

    @property
    def sets_aside(self) -> bool:
        """True while files wait until it is known who joins."""
        with self._lock:
            return bool(self._aside)

    @property
    def walking(self) -> bool:
        """True while a step of the walk is under way: what it finds was not handed out either."""
        with self._lock:
            return self._walking

    def take_back(self) -> list[Upload]:
        """Return what was found and not handed out, once it is stopped."""
        with self._lock:
            taken = [*self._left, *self._aside, *itertools.chain(*self._kept.values())]
            self._left, self._aside, self._kept = [], [], {}
            return taken

    def _keep_what_was_set_aside(self, process: int) -> None:
        """Its part of that is for a process which takes a while to start."""
        share = -(-len(self._aside) // (self._processes - process))
        if share and process in self._owed:
            self._owed.remove(process)
            self._kept[process] = self._aside[:share][::-1]
            del self._aside[:share]

    def _tell_news(self) -> None:
        for process, news in enumerate(self._news):
            if self._has_news(process):
                news.notify()

    def _has_news(self, process: int) -> bool:
        if self._stopped or process in self._gone or self._kept_for(process) is not None:
            return True
        if process > self.welcome:
            return self._ended and not self._left and not self._aside
        if self._left:
            return True
        if self._ended:
            # The first one stays until the others have what was kept for them, or are gone.
            return process > 0 or not (self._kept or self._aside)
        return not self._walking

    def _kept_for(self, process: int) -> int | None:
        orphans = self._gone if process == 0 else ()
        return next((each for each in (process, *orphans) if each in self._kept), None)

    def _cut(self, most: int) -> list[Upload]:
        portion = self._left[: -most - 1 : -1]
        del self._left[-most:]
        if self._ended and not self._left:
            self._tell_news()  # there is nothing to wait for any more
        return portion

    def _walk_on(self) -> None:
        uploads = None
        try:
            batch = next(self._batches, None)
            if batch is not None:
                uploads = self._arrived(batch)
                if uploads and not self._begun:
                    self._begin(uploads)
        finally:
            with self._lock:
                self._walking = False
                self._ended = uploads is None
                # Before those that are left: what was set aside may have been given back meanwhile.
                self._left[:0] = (uploads or [])[::-1]
                if not self._may_set_aside or self.welcome == self._processes - 1:
                    self._to_set_aside = 0
                self._aside += self._left[: self._to_set_aside]
                del self._left[: self._to_set_aside]
                self._to_set_aside = 0
                if self.welcome:
                    self._keep_first_portions()
                self._tell_news()

    def _begin(self, uploads: list[Upload]) -> None:
        self._begun = True
        mean = _mean(uploads)
        with self._lock:
            if self._may_set_aside:
                self._to_set_aside = set_aside(uploads, self._processes - self.welcome, secure=self._secure)
            if mean >= _MEDIUM:
                self._most = _most(mean)

    def _keep_first_portions(self) -> None:
        """See to it that few large files don't all go to who asks first."""
        share = max(min(_MOST, -(-len(self._left) // (self.welcome + 1))), 1)
        for process in [each for each in self._owed if each <= self.welcome]:
            if self._left:
                self._owed.remove(process)
                self._kept[process] = self._cut(share)


def set_aside(uploads: list[Upload], processes: int, *, secure: bool) -> int:
    """Return how many of the first files are for those that may join, if it takes a core to encrypt them.

    The first process would begin a few huge ones all at once. What it has for itself lasts until more is known.
    """
    mean = _mean(uploads)
    even = -(-len(uploads) // processes)
    if not secure or even * mean < _ENOUGH:
        return 0
    later = len(uploads) - _ENOUGH / mean
    return min(math.ceil(later * (processes - 1) / processes), len(uploads) - even)


def _most(mean: float | None) -> int:
    """Return how many files of that mean size (octets) a portion has."""
    return int(max(min(_OCTETS / (mean or 1), _MOST), 1))


def _mean(uploads: list[Upload]) -> float:
    """Return the mean of the sizes of a sample in octets; what can't be looked at counts as empty."""
    octets = 0
    sample = uploads[:: -(-len(uploads) // _SAMPLE)]
    for upload in sample:
        with contextlib.suppress(OSError):
            octets += upload.size if upload.size >= 0 else os.stat(upload.file).st_size
    return octets / len(sample)
