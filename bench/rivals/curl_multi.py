"""libcurl, as fast as pycurl lets it: the multi interface on epoll, one multiplexed connection.

Handles are reused, each transfer changes only what differs. libcurl asks a file's own read method for octets, so that
no Python code runs per read; what is read is copied once more into libcurl's buffer, for pycurl knows no other way.
"""

from __future__ import annotations

import io
import os
import select
import ssl
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pycurl

from bench.rivals import tree

#: libcurl asks for as much at a time; its default is 64 KiB, its most 2 MiB. More than this brought nothing.
_UPLOAD_BUFFER = 512 << 10


class _Events:
    """The epoll side of the multi interface: what libcurl wants to be told, and when."""

    def __init__(self, multi: pycurl.CurlMulti) -> None:
        self._multi = multi
        self._epoll = select.epoll()
        self._watched: set[int] = set()
        self._due: float | None = 0.0
        multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        multi.setopt(pycurl.M_TIMERFUNCTION, self._timer)

    def _timer(self, milliseconds: int) -> None:
        self._due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _watch(self, what: int, descriptor: int, multi: object, data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            if descriptor in self._watched:
                self._watched.discard(descriptor)
                self._epoll.unregister(descriptor)
            return
        mask = (select.EPOLLIN if what & pycurl.POLL_IN else 0) | (select.EPOLLOUT if what & pycurl.POLL_OUT else 0)
        if descriptor in self._watched:
            self._epoll.modify(descriptor, mask)
        else:
            self._watched.add(descriptor)
            self._epoll.register(descriptor, mask)

    def step(self) -> None:
        """Wait for a socket or the timer, and let libcurl work."""
        wait = -1.0 if self._due is None else max(0.0, self._due - time.monotonic())
        for descriptor, mask in self._epoll.poll(wait):
            ready = (pycurl.CSELECT_IN if mask & select.EPOLLIN else 0) | (
                pycurl.CSELECT_OUT if mask & select.EPOLLOUT else 0
            )
            self._multi.socket_action(descriptor, ready or pycurl.CSELECT_ERR)
        if self._due is not None and self._due <= time.monotonic():
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)


class Uploads:
    """Uploads `files` to `url`, `concurrency` at a time."""

    def __init__(self, url: str, files: Iterator[tuple[str, str]], concurrency: int, cacert: Path | None) -> None:
        self.count = tree.Count()
        self._url = tree.template(url)
        self._files = files
        self._cacert = cacert
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, 1)
        self._events = _Events(self._multi)
        self._idle = [self._handle() for _ in range(concurrency)]
        self._active: dict[pycurl.Curl, tuple[io.FileIO, int]] = {}

    def run(self) -> None:
        """Upload everything."""
        while self._start() or self._active:
            self._events.step()
            self._collect()

    def _handle(self) -> pycurl.Curl:
        handle = pycurl.Curl()
        cleartext = urllib.parse.urlsplit(self._url).scheme == "http"
        version = pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE if cleartext else pycurl.CURL_HTTP_VERSION_2TLS
        handle.setopt(pycurl.HTTP_VERSION, version)
        handle.setopt(pycurl.PIPEWAIT, 1)
        handle.setopt(pycurl.UPLOAD, 1)
        handle.setopt(pycurl.UPLOAD_BUFFERSIZE, _UPLOAD_BUFFER)
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.NOPROGRESS, 1)
        handle.setopt(pycurl.WRITEFUNCTION, len)  # "all taken"
        handle.setopt(pycurl.HTTPHEADER, ["Expect:", "Content-Type: application/octet-stream"])
        if self._cacert:
            handle.setopt(pycurl.CAINFO, str(self._cacert))
        return handle

    def _start(self) -> bool:
        """Begin uploads while handles are idle; return whether any was begun."""
        begun = False
        while self._idle:
            entry = next(self._files, None)
            if entry is None:
                self._idle.clear()
                break
            path, name = entry
            file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by _finish
            size = os.fstat(file.fileno()).st_size
            handle = self._idle.pop()
            handle.setopt(pycurl.URL, self._url.replace("{path}", name))
            handle.setopt(pycurl.READFUNCTION, file.read)
            handle.setopt(pycurl.INFILESIZE_LARGE, size)
            self._active[handle] = file, size
            self._multi.add_handle(handle)
            begun = True
        return begun

    def _collect(self) -> None:
        queued = 1
        while queued:
            queued, finished, failed = self._multi.info_read(len(self._active) or 1)
            for handle in finished:
                self._finish(handle, handle.getinfo(pycurl.RESPONSE_CODE))
            for handle, _, _ in failed:
                self._finish(handle, 0)

    def _finish(self, handle: pycurl.Curl, status: int) -> None:
        file, size = self._active.pop(handle)
        file.close()
        self._multi.remove_handle(handle)
        self._idle.append(handle)
        self.count.add(status, size)


def main() -> None:
    """Upload a folder and print the count."""
    options = tree.arguments("Upload a folder with libcurl's multi interface.")
    uploads = Uploads(options.url, tree.files(options.dir), options.concurrency, options.cacert)
    uploads.run()
    uploads.count.print(pycurl=pycurl.version, python_openssl=ssl.OPENSSL_VERSION.split()[1])


if __name__ == "__main__":
    main()
