"""Chromium without a window, driven by the DevTools protocol over two pipes: one page at a time, nothing to install.

https://chromedevtools.github.io/devtools-protocol/ has the methods and events that are named here.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

#: Seconds until the browser must have answered, and until it must have ended.
_ANSWERS: Final = 60.0
_ENDS: Final = 10.0
#: Of the window, in CSS pixels.
_HEIGHT: Final = 900
#: Where the browser reads commands, and where it writes answers and events.
_COMMANDS, _EVENTS = 3, 4
_OPTIONS: Final = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--disable-lcd-text",
)  # fmt: skip


def program() -> str | None:
    """Return the path of Chromium; None where it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Page]:
    """Run Chromium until the block ends, with its profile in `folder`; gives its page. Raises FileNotFoundError."""
    path = program()
    if path is None:
        raise FileNotFoundError("chromium is not installed")
    commands, written = _pipe()
    read, events = _pipe()
    pid = os.posix_spawn(
        path,
        # The sandbox needs a user who is not root.
        [path, *_OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else []), f"--user-data-dir={folder}", "about:blank"],
        {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"} | {"HOME": str(folder)},
        file_actions=[
            *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)),
            (os.POSIX_SPAWN_DUP2, commands, _COMMANDS),
            (os.POSIX_SPAWN_DUP2, events, _EVENTS),
        ],
        setsid=True,
    )
    os.close(commands)
    os.close(events)
    try:
        yield Page(read, written)
    finally:
        with contextlib.suppress(OSError):
            os.write(written, b'{"id": 0, "method": "Browser.close"}\0')
        _reap(pid)
        os.close(written)
        os.close(read)


def _pipe() -> tuple[int, int]:
    """Return a pipe whose ends are none of the numbers that the browser's will have."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]


def _reap(pid: int) -> None:
    limit = time.monotonic() + _ENDS
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > limit:
            # The session was made for this browser alone.
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(0.02)


class Page:
    """The one page of a browser. `events` are those that came since the last `open`, by method and parameters."""

    def __init__(self, read: int, written: int) -> None:
        self._read = read
        self._written = written
        self._received = b""
        self._last = 0
        self._session: str | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method of the protocol and return its result. Raises RuntimeError, TimeoutError."""
        self._last += 1
        session = {} if self._session is None else {"sessionId": self._session}
        command = {"id": self._last, "method": method, "params": parameters, **session}
        octets = json.dumps(command).encode() + b"\0"
        while octets:
            octets = octets[os.write(self._written, octets) :]
        while True:
            message = self._message()
            if message.get("id") == self._last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                result: dict[str, Any] = message["result"]
                return result

    def open(self, path: Path, width: int = 1280, *, dark: bool = False) -> None:
        """Open a file in a window so many CSS pixels wide; returns when it has loaded."""
        self.resize(width)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("Page.loadEventFired")

    def resize(self, width: int) -> None:
        """Give the window another width."""
        size = {"width": width, "height": _HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def wait(self, method: str) -> None:
        """Return when an event has come. Raises TimeoutError."""
        while all(name != method for name, _ in self.events):
            self._message()

    def value(self, script: str) -> Any:
        """Return what a script comes to; a promise is waited for. Raises RuntimeError when it throws."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def png(self, clip: Mapping[str, float], scale: float = 1.0) -> bytes:
        """Return a picture of a part of the page (x, y, width, height in CSS pixels), larger or smaller by `scale`."""
        part = {**clip, "scale": scale}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=part)
        return base64.b64decode(shot["data"])

    def pdf(self) -> bytes:
        """Return what printing gives."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])

    def _message(self) -> dict[str, Any]:
        """Return the next message; an event is kept, too."""
        while b"\0" not in self._received:
            if not select.select([self._read], [], [], _ANSWERS)[0]:
                raise TimeoutError("the browser does not answer")
            octets = os.read(self._read, 1 << 20)
            if not octets:
                raise RuntimeError("the browser has ended")
            self._received += octets
        text, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append((message["method"], message.get("params", {})))
        return message
