"""What every fuzzer has: its options, its corpus, and what is done about a finding, a crash and a hang.

A fuzzer is a script `fuzz_NAME.py` that calls `main` with two functions: `make` draws an input, octets, and `check`
tries it and returns its outcome, anything hashable. An input with a new outcome is worth more than others: it is
changed again and again for the rest of the run. `corpus/NAME.txt` holds inputs, one a line in hex, and is replayed
first; --grow writes the shortest one for each outcome to it. Why not by coverage: docs/decisions/0011-fuzzing.md.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable, Hashable
from pathlib import Path

HERE = Path(__file__).parent
LAST = HERE.parent.parent / "build"

#: Seconds after which a batch of inputs hangs.
HANG = 60
#: Inputs between two looks at clock and memory.
BATCH = 64
#: Octets of the longest input in the corpus.
KEPT = 400
#: How much the resident set may grow over the first batches, in octets.
GROWTH = 256 * 1024 * 1024


def main(
    name: str, make: Callable[[random.Random], bytes], check: Callable[[bytes], Hashable], *, mutated: bool = True
) -> int:
    """Run until the time or the number of cases is used up. Returns the exit code: 1 with a finding.

    Args:
        name: of the fuzzer.
        make: draws an input.
        check: tries an input; whatever it raises is a finding.
        mutated: inputs may also be made by changing octets of earlier ones.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on after the corpus")
    parser.add_argument("--cases", type=int, default=sys.maxsize, help="how many inputs at most")
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1_000_000, help="of the first input")
    parser.add_argument("--input", type=bytes.fromhex, help="try this one alone, in hex")
    parser.add_argument("--grow", action="store_true", help="write inputs with new outcomes to the corpus")
    options = parser.parse_args()
    if options.input is not None:
        print(check(options.input))
        return 0
    LAST.mkdir(exist_ok=True)
    with (LAST / f"fuzz-{name}.last").open("wb", buffering=0) as last:
        run = _Run(check, last.fileno())
        kept = corpus(name)
        if not all(run.tries(octets) for octets in kept):
            return 1
        cases = 0
        end = time.monotonic() + options.seconds
        while cases < options.cases and time.monotonic() < end:
            faulthandler.dump_traceback_later(HANG, exit=True)
            for _ in range(min(BATCH, options.cases - cases)):
                rng = random.Random(options.seed + cases)
                octets = mutant(rng, kept) if mutated and kept and rng.random() < 0.5 else make(rng)
                if not run.tries(octets):
                    return 1
                if run.novel:
                    kept.append(octets)
                cases += 1
            if run.grown() > GROWTH:
                print(f"memory grew by {run.grown()} octets, from seed {options.seed}")
                return 1
        faulthandler.cancel_dump_traceback_later()
    print(f"{cases} inputs, {len(run.outcomes)} outcomes, nothing found, from seed {options.seed}")
    if options.grow:
        short = [octets for octets in run.outcomes.values() if len(octets) <= KEPT]
        _file(name).write_text(
            "".join(octets.hex() + "\n" for octets in sorted(short, key=lambda one: (len(one), one)))
        )
    return 0


class _Run:
    def __init__(self, check: Callable[[bytes], Hashable], last: int) -> None:
        #: The shortest input for each.
        self.outcomes: dict[Hashable, bytes] = {}
        self.novel = False
        self._check = check
        self._last = last
        self._tried = 0
        self._resident = 0

    def tries(self, octets: bytes) -> bool:
        """Try an input; False: a finding, which is told. The file of the last input survives a crash."""
        os.ftruncate(self._last, 0)
        os.pwrite(self._last, octets.hex().encode(), 0)
        try:
            outcome = self._check(octets)
        except Exception:
            traceback.print_exc()
            print(f"found; again with --input {octets.hex()}")
            return False
        self.novel = outcome not in self.outcomes
        if self.novel or len(octets) < len(self.outcomes[outcome]):
            self.outcomes[outcome] = octets
        self._tried += 1
        if self._tried == 1000:
            self._resident = _resident()
        return True

    def grown(self) -> int:
        """Return octets of growth, once the first inputs have warmed everything up."""
        return _resident() - self._resident if self._resident else 0


def corpus(name: str) -> list[bytes]:
    """Return the inputs that are kept."""
    file = _file(name)
    return [bytes.fromhex(line) for line in file.read_text().split()] if file.exists() else []


def mutant(rng: random.Random, kept: list[bytes]) -> bytes:
    """Return an input like a kept one: octets changed, taken out, doubled, or continued by those of another."""
    octets = bytearray(rng.choice(kept))
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(octets) + 1)
        end = min(len(octets), at + rng.choice((1, 2, 9, 30)))
        match rng.randrange(5):
            case 0 if at < len(octets):
                octets[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(octets):
                octets[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del octets[at:end]
            case 3:
                octets[at:at] = octets[at:end] * rng.choice((1, 1, 2, 50))
            case _:
                other = rng.choice(kept)
                octets[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(octets[:100_000])


def _file(name: str) -> Path:
    return HERE / "corpus" / f"{name}.txt"


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
