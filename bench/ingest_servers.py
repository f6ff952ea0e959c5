"""Compare ASGI servers with HTTP/2 as the embedded server: docs/decisions/0001-embedded-server.md.

    python -m bench.ingest_servers [--rounds N] [--quick]

Each one runs the embedded server's application (SHA-256 of every body) with the same windows, and is loaded by h2load
on one connection; Markdown goes to stdout. "granian" is its ordinary server, "granian embed" the one for an
event loop that exists already, as h2corn is used here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.measure import ROOT, Spread, machine, spread

if TYPE_CHECKING:
    from granian.http import HTTP2Settings

MIB = 1 << 20
STREAM_WINDOW = 16 * MIB
CONNECTION_WINDOW = 32 * MIB
MAX_STREAMS = 10_000
_TICKS = os.sysconf("SC_CLK_TCK")


# --- the servers ------------------------------------------------------------------------------------


def serve_h2corn(port: int, certificate: Path | None) -> None:
    """Serve with h2corn, in this process."""
    from h2corn import Config, Server

    from fastpost.ingest_app import app

    config = Config(
        port=port,
        lifespan="off",
        access_log=False,
        runtime_threads=1,
        certfile=certificate,
        keyfile=certificate,
        max_request_body_size=0,
        max_concurrent_streams=MAX_STREAMS,
        h2_initial_stream_window_size=STREAM_WINDOW,
        h2_initial_connection_window_size=CONNECTION_WINDOW,
    )
    asyncio.run(Server(app, config).serve())


def serve_granian(port: int, certificate: Path | None) -> None:
    """Serve with granian's main process and one worker process."""
    from granian.constants import Interfaces
    from granian.server import Server

    Server(
        "fastpost.ingest_app:app",
        port=port,
        interface=Interfaces.ASGINL,
        log_enabled=False,
        backpressure=MAX_STREAMS,
        http2_settings=_granian_http2(),
        ssl_cert=certificate,
        ssl_key=certificate,
    ).serve()


def serve_granian_embed(port: int, certificate: Path | None) -> None:
    """Serve with granian in this process, which its authors call experimental."""
    from granian.constants import Interfaces
    from granian.server.embed import Server

    from fastpost.ingest_app import app

    server = Server(
        app,
        port=port,
        interface=Interfaces.ASGINL,
        log_enabled=False,
        backpressure=MAX_STREAMS,
        http2_settings=_granian_http2(),
        ssl_cert=certificate,
        ssl_key=certificate,
    )
    asyncio.run(server.serve())


def _granian_http2() -> HTTP2Settings:
    from granian.http import HTTP2Settings

    return HTTP2Settings(
        initial_connection_window_size=CONNECTION_WINDOW,
        initial_stream_window_size=STREAM_WINDOW,
        max_concurrent_streams=MAX_STREAMS,
        max_frame_size=64 * 1024,
    )


SERVERS: dict[str, Callable[[int, Path | None], None]] = {
    "h2corn": serve_h2corn,
    "granian": serve_granian,
    "granian-embed": serve_granian_embed,
}


class Running(NamedTuple):
    """A server's first process, which leads a session of its own."""

    process: subprocess.Popen[bytes]
    url: str
    started: float

    def pids(self) -> list[int]:
        """Return the processes of its session that run."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                state, _, _, session = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.process.pid and state not in "ZX":
                    found.append(int(name))
        return found

    def cpu(self) -> float:
        """Return the CPU seconds that its processes have used, user and system."""
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / _TICKS

    def peak_rss(self) -> int:
        """Return the octets of the peak RSS of its processes together."""
        status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in self.pids())
        return sum(int(kib) << 10 for kib in re.findall(r"VmHWM:\s+(\d+)", status))


@contextlib.contextmanager
def running(name: str, certificate: Path | None = None) -> Iterator[Running]:
    """Start a server, give it when it has answered a request, kill what is left of it at the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "bench.ingest_servers", "--serve", name, str(port), str(certificate or "")]
    url = f"http{'s' if certificate else ''}://127.0.0.1:{port}/some/folder/file"
    before = time.perf_counter()
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    one = Running(process, url, 0.0)
    try:
        while time.perf_counter() - before < 20 and not _answers(port):
            time.sleep(0.002)
        yield one._replace(started=time.perf_counter() - before)
    finally:
        for pid in one.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    """Tell whether a server accepts a connection and says something on it."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(preface)
        return bool(client.recv(9))
    return False


# --- what is measured -------------------------------------------------------------------------------


class Load(NamedTuple):
    """A load of h2load: uploads in all and at once, octets of each."""

    uploads: int
    at_once: int
    size: int

    def run(self, server: Running, body: Path) -> tuple[float, float]:
        """Return seconds, and CPU seconds of the server. Every upload has to be answered with 2xx."""
        argv = ["h2load", f"-n{self.uploads}", "-c1", f"-m{self.at_once}", "-w30", "-W30", f"-d{body}"]
        before = server.cpu()
        done = subprocess.run([*argv, "-H:method: PUT", server.url], capture_output=True, text=True, check=True)
        used = server.cpu() - before
        if f"status codes: {self.uploads} 2xx" not in done.stdout:
            raise SystemExit(f"not every upload was answered with 2xx:\n{done.stdout}")
        return _seconds(done.stdout), used


def _seconds(report: str) -> float:
    found = re.search(r"finished in ([\d.]+)(us|ms|s|m)\b", report)
    if found is None:
        raise SystemExit(f"can't read h2load's report:\n{report}")
    return float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[found[2]]


def compare(rounds: int, small: Load, large: Load, huge: Load, folder: Path) -> dict[str, dict[str, str]]:
    """Return a table: row → server → figure."""
    table: dict[str, dict[str, str]] = {}
    certificate = _certificate(folder)
    bodies = {load: _body(folder, load) for load in (small, large, huge)}
    for tls in (None, certificate):
        how = "TLS" if tls else "cleartext"
        measured: dict[str, dict[str, list[float]]] = {}
        for _ in range(rounds):
            for name in SERVERS:
                with running(name, tls) as server:
                    seconds, cpu = small.run(server, bodies[small])
                    figures = {
                        f"4 KiB, {how}: uploads/s": small.uploads / seconds,
                        f"4 KiB, {how}: CPU µs an upload": cpu / small.uploads * 1e6,
                    }
                    if not tls:
                        figures["start to first answer, s"] = server.started
                    octets = large.uploads * large.size
                    seconds, cpu = large.run(server, bodies[large])
                    figures[f"256 MiB, {how}: MB/s"] = octets / seconds / 1e6
                    figures[f"256 MiB, {how}: CPU-s/GB"] = cpu / octets * 1e9
                for row, figure in figures.items():
                    measured.setdefault(row, {}).setdefault(name, []).append(figure)
                print(f"{name} {how}: {figures}", file=sys.stderr)
        for row, by_server in measured.items():
            table[row] = {name: _shown(spread(figures)) for name, figures in by_server.items()}
    for name in SERVERS:
        for row, text in _habits(name, huge, bodies[huge]).items():
            table.setdefault(row, {})[name] = text
    return table


def _habits(name: str, huge: Load, body: Path) -> dict[str, str]:
    """Return what needs no rounds: windows, memory, the end."""
    rows = {}
    with running(name) as server:
        rows["windows: stream, connection"] = _windows(server)
        rows["processes"] = str(len(server.pids()))
        huge.run(server, body)
        rows["peak RSS after 1 GiB, MB"] = f"{server.peak_rss() / 1e6:.0f}"
    for number in (signal.SIGTERM, signal.SIGINT):
        with running(name) as server:
            before = time.perf_counter()
            server.process.send_signal(number)
            try:
                status = server.process.wait(5)
                rows[number.name] = f"status {status} after {time.perf_counter() - before:.2f} s"
            except subprocess.TimeoutExpired:
                rows[number.name] = "still there after 5 s"
    with running(name) as server:
        server.process.kill()
        server.process.wait()
        time.sleep(2)
        rows["first process killed: left after 2 s"] = str(len(server.pids()))
    return rows


def _windows(server: Running) -> str:
    """Return the initial windows as nghttp sees them."""
    seen = subprocess.run(["nghttp", "-nv", server.url], capture_output=True, text=True, check=True).stdout
    received = seen[seen.index("recv SETTINGS") :]
    stream = re.search(r"INITIAL_WINDOW_SIZE\(0x04\):(\d+)", received)
    grown = re.search(r"recv WINDOW_UPDATE frame <[^>]*stream_id=0>\s+\(window_size_increment=(\d+)", received)
    connection = 65535 + (int(grown[1]) if grown else 0)
    return f"{int(stream[1]) // MIB if stream else 0}, {connection // MIB} MiB"


def _shown(figures: Spread) -> str:
    digits = 0 if figures.median >= 100 else 1 if figures.median >= 10 else 2
    return f"{figures:.{digits}f}"


def _body(folder: Path, load: Load) -> Path:
    path = folder / f"body-{load.size}"
    with path.open("wb") as file:
        file.truncate(load.size)
    return path


def _certificate(folder: Path) -> Path:
    import trustme

    path = folder / "server.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of a tenth of the load")
    parser.add_argument("--serve", nargs=3, metavar=("SERVER", "PORT", "PEM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        name, port, pem = options.serve
        SERVERS[name](int(port), Path(pem) if pem else None)
        return
    if missing := [tool for tool in ("h2load", "nghttp") if shutil.which(tool) is None]:
        raise SystemExit(f"needs {' and '.join(missing)}: apt install nghttp2-client")
    share = 10 if options.quick else 1
    small = Load(20_000 // share, 50, 4096)
    large = Load(4, 4, 256 * MIB // share)
    huge = Load(1, 1, 1024 * MIB // share)
    with tempfile.TemporaryDirectory(prefix="fastpost-bench-") as folder:
        table = compare(1 if options.quick else options.rounds, small, large, huge, Path(folder))
    print(", ".join(f"{name} {value}" for name, value in machine().items()), end="\n\n")
    print("| | " + " | ".join(SERVERS) + " |\n|---" + "|---" * len(SERVERS) + "|")
    for row, by_server in table.items():
        print(f"| {row} | " + " | ".join(by_server.get(name, "") for name in SERVERS) + " |")


if __name__ == "__main__":
    main()
