"""What a journal holds, for `fastpost journal show`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

from fastpost.errors import Exit
from fastpost.recorded import Contents, Entry, Recorded, opened
from fastpost.report import Row, named, octets_text, plain, safe
from fastpost.sources import printable

if TYPE_CHECKING:
    from fastpost.outlet import Outlet

SCHEMA: Final = "fastpost.journal/1"


def show_journal(path: str, out: Outlet, *, listed: bool, as_json: bool) -> int:
    """Print what a journal comes to, after a line for each of its successes if `listed`; return the exit code.

    Raises UsageError when it is no journal, OSError when it can't be read. Takes 16 to 48 octets of memory a file.
    """
    # By name, whatever the target: where all files go to one URL, two of a name count as one.
    recorded = Recorded(shared=False)
    successes = octets = 0
    with opened(path) as file:
        contents = Contents(file, path)
        for entry in contents.entries():
            recorded.add(entry)
            successes += 1
            octets += entry.size
            if listed:
                out.write(_line(entry, as_json))
        torn = os.fstat(file.fileno()).st_size - contents.intact
    if as_json:
        summary = {"schema": SCHEMA, "target": contents.target, "files": len(recorded), "successes": successes}
        out.write(json.dumps(summary | {"octets": octets, "torn": torn, "damaged": contents.damaged}) + "\n")
        return Exit.OK
    rows = [Row("target", safe(contents.target or "none yet: no run has begun")), Row("files", f"{len(recorded):,}")]
    rows.append(Row("uploads", f"{successes:,} successes · {octets_text(octets)}"))
    if torn:
        rows.append(Row("torn", f"the last {torn:,} octets are not whole, as after a kill; the next run drops them"))
    if contents.damaged:
        rows.append(Row("damaged", f"{contents.damaged:,} octets in its midst; their files are uploaded again"))
    out.write(plain(rows))
    return Exit.OK


def _line(entry: Entry, as_json: bool) -> str:
    if as_json:
        facts = {"size": entry.size, "mtime_ns": entry.mtime_ns, "inode": entry.inode}
        return json.dumps(named("name", entry.name) | facts) + "\n"
    return f"{entry.size}\t{entry.mtime_ns / 1e9:.3f}\t{printable(entry.name)}\n"
