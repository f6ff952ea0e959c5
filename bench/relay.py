"""A TCP relay that makes a long line of the loopback: every octet arrives half a round trip later, at any rate.

    with Relay(port, rtt=0.05) as relay: … http://127.0.0.1:{relay.port}/

One thread for each direction of a connection; it holds what is under way, so it never slows a sender down.
"""

from __future__ import annotations

import collections
import contextlib
import socket
import threading
import time

_HOST = "127.0.0.1"
_PIECE = 1 << 18


class Relay:
    """Listens on a free port of the loopback address and passes on to another one, as a context manager.

    Args:
        port: where to.
        rtt: seconds of a round trip.
    """

    def __init__(self, port: int, rtt: float) -> None:
        self._target = port
        self._delay = rtt / 2
        self._listener = socket.create_server((_HOST, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Relay:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((_HOST, self._target))
                self._sockets += [near, far]
                for one in (near, far):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _Line(near, far, self._delay).start()
                _Line(far, near, self._delay).start()


class _Line:
    """One direction: what comes in goes out `delay` seconds later."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay: float) -> None:
        self._source = source
        self._sink = sink
        self._delay = delay
        self._under_way: collections.deque[tuple[float, bytes]] = collections.deque()
        self._arrived = threading.Semaphore(0)

    def start(self) -> None:
        for work in (self._take, self._give):
            threading.Thread(target=work, daemon=True).start()

    def _take(self) -> None:
        octets = b"."
        while octets:
            try:
                octets = self._source.recv(_PIECE)
            except OSError:
                octets = b""
            self._under_way.append((time.monotonic() + self._delay, octets))
            self._arrived.release()

    def _give(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._arrived.acquire()
                due, octets = self._under_way.popleft()
                time.sleep(max(due - time.monotonic(), 0.0))
                if not octets:
                    self._sink.shutdown(socket.SHUT_WR)
                    return
                self._sink.sendall(octets)
