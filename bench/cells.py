"""The cells of the comparison, and what is kept of each on disk."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from bench.bars import Sample

SCHEMA = "fastpost.bench.compare/1"


class Cell(NamedTuple):
    """One server, cleartext or TLS, with one kind of file set: small, medium, large or tree."""

    server: str
    tls: bool
    kind: str

    @property
    def name(self) -> str:
        """Its name, also that of its file."""
        return f"{self.server}{'-tls' if self.tls else ''}-{self.kind}"

    @property
    def way(self) -> str:
        """The server and how it is spoken to."""
        return f"{self.server}, {'TLS' if self.tls else 'cleartext'}"


@dataclasses.dataclass(slots=True)
class Record:
    """All runs of a cell, and what is needed to understand them."""

    server: str
    tls: bool
    kind: str
    #: The set of files in words.
    what: str
    files: int
    octets: int
    quick: bool
    concurrency: int
    date: str
    machine: dict[str, str]
    #: Octets; a peak RSS below it could not be seen.
    floor: int
    #: Clients that could not take part, and clients that failed, with the reason.
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    runs: dict[str, list[Sample]] = dataclasses.field(default_factory=dict)

    @property
    def cell(self) -> Cell:
        """The cell that this is the record of."""
        return Cell(self.server, self.tls, self.kind)

    def merged(self, older: Record) -> Record:
        """Return this record with the older one's runs before its own.

        A client that failed in either is out of both: its runs are left out. One that was absent once is there now.

        Raises ValueError when the two are not of the same files, machine and versions.
        """
        for name in ("cell", "files", "octets", "quick", "concurrency", "machine"):
            if getattr(self, name) != getattr(older, name):
                raise ValueError(f"can't be merged with what is on disk: {name} differs. Run the cell without --merge")
        failed = older.failed | self.failed
        names = [name for name in {**older.runs, **self.runs} if name not in failed]
        absent = {name: why for name, why in (older.absent | self.absent).items() if name not in names}
        return dataclasses.replace(
            self,
            floor=max(self.floor, older.floor),
            absent=absent,
            failed=failed,
            runs={name: [*older.runs.get(name, []), *self.runs.get(name, [])] for name in names},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record for its file."""
        runs = {name: [sample._asdict() for sample in samples] for name, samples in self.runs.items()}
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"schema": SCHEMA} | fields | {"runs": runs}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Record:
        """Return the record of a file. Raises ValueError when the file is none."""
        if told.get("schema") != SCHEMA:
            raise ValueError(f"not a record of the comparison: schema {told.get('schema')}")
        runs = {name: [Sample(**sample) for sample in samples] for name, samples in told["runs"].items()}
        return cls(**{name: value for name, value in told.items() if name != "schema"} | {"runs": runs})
