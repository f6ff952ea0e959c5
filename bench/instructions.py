"""Instructions that the session costs, in user space: each small upload, each GB mapped, each GB staged.

    python -m bench.instructions [--record] [--top 20]

Exits with 1 when a figure is above what bench/instructions.json allows, with 2 when it can't be measured.
docs/decisions/0005-instruction-counts.md says why these figures can be trusted.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from bench.in_memory import CASES
from bench.measure import ROOT, RunFailed
from fastpost import _sending

RECORD = ROOT / "bench" / "instructions.json"
SCHEMA = "fastpost.bench.instructions/2"
#: How far above the record a figure may be; what is not ours, when it is another build of Python.
ALLOWANCE, OTHER_BUILD = 0.05, 0.25
#: The most that may be spent on telling where the time goes.
SPLITTING = 0.02
#: The most that one instruction copies. A copy of the whole payload costs at least its octets divided by this.
COPIED_AT_ONCE = 32
GB = 1e9
_TIMEOUT = 300.0
_SPLITS = "split_time|BlockedTime|_starved|on_the_line|note_closed"

#: Instructions by (object, function).
Profile = collections.Counter[tuple[str, str]]


class Cost(NamedTuple):
    """Instructions for a unit: in fastpost's extensions, in memcpy and memmove, in all the rest of the process."""

    fastpost: float
    copies: float
    elsewhere: float


class Measure(NamedTuple):
    """What is counted: uploads of a case, so many batches and twice as many; the difference has no start-up in it."""

    case: str
    batches: int
    unit: str

    @property
    def units(self) -> float:
        """How many units the difference is."""
        case = CASES[self.case]
        files = self.batches * case.files
        return files * case.size / GB if self.unit == "GB" else files

    @property
    def octets(self) -> float:
        """Payload of a unit."""
        return GB if self.unit == "GB" else CASES[self.case].size


MEASURES = (Measure("small", 10, "upload"), Measure("mapped", 2, "GB"), Measure("staged", 2, "GB"))


# --- counting -----------------------------------------------------------------------------------------


class _Names:
    """Callgrind's abbreviations: `(7) name` at first, `(7)` from then on."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def resolve(self, kind: str, text: str) -> str:
        number, _, name = text.partition(" ")
        if name:
            self._known[kind, number] = name
        return self._known[kind, number]


def parse(lines: Iterable[str]) -> Profile:
    """Return the own cost of each function from a callgrind file; what it called counts for the called one."""
    profile: Profile = collections.Counter()
    names = _Names()
    current = {"ob": "", "fn": ""}
    inclusive = False
    for line in lines:
        key, equals, text = line.rstrip("\n").partition("=")
        if equals:
            if key.removeprefix("c") in current:
                name = names.resolve(key.removeprefix("c"), text)
                if key in current:
                    current[key] = name
            # The line after `calls=` holds the cost of the call, not of the caller.
            inclusive = key == "calls"
        elif re.match(r"[-+*\d]\S* \d", line):
            if not inclusive:
                profile[current["ob"], current["fn"].partition("'")[0]] += int(line.split()[1])
            inclusive = False
    return profile


def difference(more: Profile, fewer: Profile) -> Profile:
    """Return what `more` costs beyond `fewer`."""
    return collections.Counter({key: more[key] - fewer[key] for key in more if more[key] != fewer[key]})


def cost(profile: Profile, units: float) -> Cost:
    """Return the cost of one unit."""
    sums: collections.Counter[str] = collections.Counter()
    for (path, function), instructions in profile.items():
        sums[_part(path, function)] += instructions
    return Cost(*(round(sums[part] / units, 1) for part in Cost._fields))


def _part(path: str, function: str) -> str:
    if re.search(r"/fastpost/_\w+\.[^/]*so$", path):
        return "fastpost"
    if re.match(r"(__)?mem(p?cpy|move)", function):
        return "copies"
    return "elsewhere"


def splitting(profile: Profile) -> float:
    """Return what part of all instructions says where the time goes: `DataPlane.split_time` and what it calls."""
    spent = sum(own for (_, function), own in profile.items() if re.search(_SPLITS, function))
    return spent / max(sum(profile.values()), 1)


def run(case: str, batches: int, most: int) -> Profile:
    """Upload the case's files so many times under callgrind. Raises RunFailed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={out}"]
        command += [sys.executable, "-m", "bench.in_memory", case, str(batches), str(most), folder]
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_TIMEOUT)
        if done.returncode or not out.exists():
            raise RunFailed(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
        with out.open(errors="replace") as lines:
            return parse(lines)


def count() -> Iterator[tuple[Measure, Profile]]:
    """Run all, as many at a time as there are processors: nothing here depends on the time that it takes."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [[pool.submit(run, it.case, times * it.batches, 2 * it.batches) for times in (2, 1)] for it in MEASURES]
        for measure, (more, fewer) in zip(MEASURES, runs, strict=True):
            yield measure, difference(more.result(), fewer.result())


# --- judging ------------------------------------------------------------------------------------------


def limits(recorded: Cost, octets: float, *, same_build: bool) -> Cost:
    """Return the most that is allowed; of copies, half of what it costs to copy the payload once more."""
    return Cost(
        recorded.fastpost * (1 + ALLOWANCE),
        recorded.copies + octets / COPIED_AT_ONCE / 2,
        recorded.elsewhere * (1 + (ALLOWANCE if same_build else OTHER_BUILD)),
    )


def excesses(measured: Cost, allowed: Cost) -> list[str]:
    """Name the parts that cost more than is allowed."""
    return [part for part, value, limit in zip(Cost._fields, measured, allowed, strict=True) if value > limit]


def improved(measured: Cost, recorded: Cost) -> bool:
    """Tell whether our own part became so much cheaper that the old record would hide a later loss."""
    return measured.fastpost < recorded.fastpost * (1 - ALLOWANCE)


def environment() -> dict[str, str]:
    """Return what the figures can't be compared across."""
    return {"python": ".".join(platform.python_version_tuple()[:2]), "machine": platform.machine()}


def made_with() -> dict[str, str]:
    """Return what may explain a difference. The compiler is the one that wrote its name into our extension."""
    compiler = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", Path(_sending.__file__).read_bytes())
    return {
        "python": sys.version,
        "compiler": compiler[0].decode() if compiler else "unknown",
        "cython": importlib.metadata.version("cython"),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "libc": " ".join(platform.libc_ver()),
        "valgrind": subprocess.run(["valgrind", "--version"], capture_output=True, text=True).stdout.strip(),
    }


def judge(measured: dict[str, Cost], record: dict[str, Any]) -> int:
    """Compare with the record and say so; return the exit code."""
    failed = cheaper = False
    build = _build(record) or record["builds"][0]
    same_build = build["made_with"]["python"] == sys.version
    print("| | in fastpost | allowed | copies | allowed | elsewhere | allowed | verdict |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    for it in MEASURES:
        recorded = Cost(**build["figures"][it.case])
        allowed = limits(recorded, it.octets, same_build=same_build)
        excess = excesses(measured[it.case], allowed)
        failed |= bool(excess)
        cheaper |= improved(measured[it.case], recorded)
        cells = " | ".join(
            f"{value:,.0f} | {most:,.0f}" for value, most in zip(measured[it.case], allowed, strict=True)
        )
        print(f"| {it.case}, per {it.unit} | {cells} | {'**more: ' + ', '.join(excess) + '**' if excess else 'ok'} |")
    if failed:
        print(
            f"\nmore than recorded. --top 20 shows where; if it is worth it, --record.\n{_changes(build)}",
            file=sys.stderr,
        )
    elif cheaper:
        print("\ncheaper than recorded: record it anew with --record, or a later loss will hide in the difference")
    return int(failed)


def _build(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return what was recorded with this very build of Python."""
    return next((each for each in record["builds"] if each["made_with"]["python"] == sys.version), None)


def _changes(recorded: dict[str, Any]) -> str:
    """Say in what this build differs from the recorded one."""
    now = made_with()
    changes = [f"{key}: {was} → {now[key]}" for key, was in recorded["made_with"].items() if now[key] != was]
    return "What else is not as recorded: " + ("; ".join(changes) or "nothing")


def write(measured: dict[str, Cost]) -> None:
    """Record the figures of this build of Python, beside those of others."""
    figures = {case: figure._asdict() for case, figure in measured.items()}
    record = json.loads(RECORD.read_text())
    builds = [each for each in record["builds"] if each is not _build(record)]
    builds.append({"made_with": made_with(), "figures": figures})
    record = {"schema": SCHEMA, "environment": environment(), "builds": builds}
    RECORD.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    print(f"recorded in {RECORD.relative_to(ROOT)}")


def show(measure: Measure, profile: Profile, most: int) -> None:
    """Print the functions with the highest own cost."""
    print(f"\n{measure.case}: instructions per {measure.unit}")
    for (path, function), instructions in profile.most_common(most):
        print(f"{instructions / measure.units:16,.1f}  {Path(path).name.partition('.')[0]:16} {function}")


def main() -> int:
    """Count, then record or judge; return the exit code."""
    parser = argparse.ArgumentParser(description="Count the instructions of the session in memory.")
    parser.add_argument("--record", action="store_true", help="write bench/instructions.json anew")
    parser.add_argument("--top", type=int, default=0, metavar="N", help="show the N most expensive functions of each")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("instructions: valgrind is missing: apt install valgrind", file=sys.stderr)
        return 2
    record = {} if options.record else json.loads(RECORD.read_text())
    comparable = not record or record["environment"] == environment()
    if not comparable and not options.top:
        print(f"instructions: not compared: recorded for {record['environment']}, this is {environment()}")
        return 0
    measured, split = {}, {}
    try:
        for measure, profile in count():
            measured[measure.case] = cost(profile, measure.units)
            split[measure.case] = splitting(profile)
            if options.top:
                show(measure, profile, options.top)
    except RunFailed as error:
        print(f"instructions: {error}", file=sys.stderr)
        return 2
    if options.record:
        write(measured)
        return 0
    parts = ", ".join(f"{part:.2%} of {case}" for case, part in split.items())
    print(f"Where the time goes is told by {parts}; at most {SPLITTING:.0%}.\n")
    code = judge(measured, record) if comparable else 0
    return code or int(max(split.values()) > SPLITTING)


if __name__ == "__main__":
    sys.exit(main())
