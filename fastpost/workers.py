"""The workers of a run over several processes, as their parent sees them: begun, given files, heard, waited for."""

from __future__ import annotations

import os
import socket
import threading
from typing import IO, TYPE_CHECKING, Any, Final

from fastpost import forks
from fastpost.errors import WorkerLost
from fastpost.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastpost.config import Settings
    from fastpost.portions import Portions
    from fastpost.sources import Upload
    from fastpost.worker import Message

#: Seconds that a thread may take to notice that its worker has ended; one that walks a slow disk is left to itself.
_THREAD_ENDS: Final = 1.0


class Worker(forks.Other):
    """A worker process as its parent sees it; there is none before it is started.

    What is needed to talk to one is loaded when there is one: most runs are too short to have any, and it takes 5 ms.

    Args:
        settings: with this process's share of the concurrency and the connections.
        tells_results: whole results are wanted, not only their counts.
        grace: seconds that uploads have to finish after the first SIGTERM.

    Attributes:
        settings: see above.
        counts: the last cut of its tally.
        given: the uploads that it has and has not told the end of, by number.
        done: it has told all.
        stopped: somebody else has told it to stop.
    """

    def __init__(self, settings: Settings, tells_results: bool, grace: float) -> None:
        super().__init__(0)
        self.counts = Tally()
        self.given: dict[int, Upload] = {}
        self.done = False
        self.stopped = False
        self.settings = settings
        self._tells_results = tells_results
        self._grace = grace
        #: How to talk to it, and what it is told first: known once it is started.
        self._load: Callable[[IO[bytes]], Any]
        #: Raised by that: it was killed in the midst of a message.
        self._torn: type[Exception] = EOFError
        self._packed: Callable[[list[Upload] | None, int], bytes]
        self._orders = b""
        #: It asks here with an octet, and is sent its orders and portions.
        self._asks: socket.socket | None = None
        self._told: IO[bytes] | None = None
        #: Nothing more is taken for it.
        self._served = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def started(self) -> bool:
        """True once there was a process, whatever became of it."""
        return self._asks is not None

    def start(self) -> None:
        """Start it from nothing: whatever this process has besides, it gets none of it.

        Raises OSError when there can be no more processes, or what talks to one can't be loaded.
        """
        import pickle

        from fastpost.worker import Orders, packed

        self._load, self._torn, self._packed = pickle.load, pickle.UnpicklingError, packed
        self._orders = pickle.dumps(Orders(self.settings, self._tells_results, self._grace))
        self._asks, asks = socket.socketpair()
        reading, writing = os.pipe()
        self._told = open(reading, "rb")  # noqa: SIM115
        with asks, open(writing, "wb") as told:
            self.pid = forks.started("from fastpost.worker import main; main()", asks.fileno(), told.fileno())

    def attend(self, name: str, waits: Callable[..., None], *arguments: object) -> None:
        """Have a thread call `waits`, which waits for this worker and ends with it."""
        thread = threading.Thread(target=waits, args=arguments, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def serve(self, number: int, portions: Portions) -> None:
        """Give it what it asks for, in a thread, until there is no more or it is gone. Raises what the walk raises.

        Args:
            number: its own among the processes.
            portions: where it comes from.
        """
        assert self._asks is not None
        first = 0
        try:
            self._asks.sendall(self._orders)
            while self._asks.recv(1):
                uploads = portions.take(number)
                self.given.update(enumerate(uploads or (), start=first))
                self._asks.sendall(self._packed(uploads, first))
                if uploads is None:
                    break
                first += len(uploads)
        except OSError:
            pass  # it is gone
        finally:
            self._served.set()

    def release(self, number: int, portions: Portions) -> None:
        """Have nothing more taken for it, once it has told all or is gone; whatever was is in `given` afterwards.

        Waits for a step of the walk, in a thread, if that is made for it.
        """
        portions.leave(number)
        self._served.wait()

    def hear(self) -> Message | None:
        """Wait for its next message, in a thread; None: it is gone."""
        assert self._told is not None
        try:
            message: Message = self._load(self._told)
        except (EOFError, OSError, self._torn):
            return None
        return message

    def lost(self) -> WorkerLost:
        """Say how it ended, once its pipe says that it did."""
        return WorkerLost(
            f"one of the processes {self.wait()}: this file was with it, and may have arrived or not; upload it again"
        )

    def end(self) -> None:
        """End it: whoever wants its last word has heard it."""
        self.kill()
        self.wait()
        for thread in self._threads:
            thread.join(_THREAD_ENDS)
        self.close()

    def close(self) -> None:
        """Close the parent's ends."""
        for end in (self._asks, self._told):
            if end is not None:
                end.close()
