"""Which handlers follow each other: what `celaje/engine/translate/sequences.py` is made from.

    python -m bench.sequences [--kernel FILE --initrd FILE]

builds the engine with counters in its handlers, runs the benchmark's programs and boots Debian on it, and prints the
sequences that save the most jumps: first pairs, then, with those in place, what follows them, and so on in rounds,
since each round's sequences end elsewhere. The boot counts as much as four programs. Takes a few minutes.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench import boot, programs
from celaje.engine.translate.code_cache import LoadedProgram, map_program, write_program
from celaje.engine.translate.compiler import compile_text
from celaje.engine.translate.engine import TranslateEngine
from celaje.engine.translate.link import link
from celaje.engine.translate.program import PROFILED_HANDLERS, build_program
from celaje.machine.config import MachineConfig
from celaje.machine.console import BufferConsole
from celaje.machine.machine import Machine

BOOT_WEIGHT = 4
ROUNDS = ((2, 400), (3, 200), (3, 120), (3, 80))  # length of the sequences, how many
# A first one that goes elsewhere, or either one out of line, makes no pair.
ENDS = re.compile(r"(^|\+)(beq|bne|blt|bge|bltu|bgeu|jal|jalr)\.|\.full$")
OUT_OF_LINE = re.compile(r"\.full$")


class Profiler:
    """The profiled engine and its counters."""

    def __init__(self, directory: Path, sequences: Sequence[tuple[str, ...]]) -> None:
        program = build_program(sequences, profiled=True)
        linked = link(compile_text(program.text))
        path = directory / "profiled.code"
        offsets = [linked.symbols[name] for name in program.handlers]
        write_program(path, linked.code, linked.symbols["run"], offsets, program.handlers, program.tables)
        loaded = map_program(path)
        assert loaded is not None
        self._program: LoadedProgram = loaded
        self._names = program.counted

    def run(self, config: MachineConfig) -> Counter[tuple[str, str]]:
        """Run one machine to its end: how often each handler came after which."""
        counters = (ctypes.c_uint64 * PROFILED_HANDLERS**2)()

        def engine(harts: int) -> TranslateEngine:
            made = TranslateEngine(harts, program=self._program)
            for hart in made.harts:
                hart.set("profile", ctypes.addressof(counters))
            return made

        with Machine(config, engine) as machine:
            machine.run(BufferConsole())
        names = self._names
        return Counter(
            {
                (names[index // PROFILED_HANDLERS], names[index % PROFILED_HANDLERS]): count
                for index, count in enumerate(counters)
                if count
            }
        )


def followers(
    guests: list[tuple[MachineConfig, int]], sequences: Sequence[tuple[str, ...]], length: int
) -> list[tuple[str, ...]]:
    """Sequences of `length` to add to `sequences`, the best first."""
    share: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        profiler = Profiler(Path(directory), sequences)
        for config, weight in guests:
            counted = profiler.run(config)
            total = sum(counted.values())
            for (first, second), count in counted.items():  # of a sequence that follows, its beginning would
                share[first, second.partition("+")[0]] += weight * 1_000_000_000 * count // total
    found = [
        (*first.split("+"), second)
        for (first, second), _ in share.most_common()
        if not ENDS.search(first) and not OUT_OF_LINE.search(second)
    ]
    return [sequence for sequence in dict.fromkeys(found) if len(sequence) == length and sequence not in sequences]


def main() -> None:
    """Print the table of sequences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kernel", type=Path)
    parser.add_argument("--initrd", type=Path)
    chosen = parser.parse_args()
    files = boot.files(chosen.kernel, chosen.initrd)
    if isinstance(files, str):
        sys.exit(files)
    guests = [(MachineConfig(firmware=programs.program(name), memory=256 << 20), 1) for name in programs.PROGRAMS]
    append = f"{boot.APPEND} celaje.poweroff"
    guests.append((MachineConfig(kernel=files.kernel, initrd=files.initrd, append=append), BOOT_WEIGHT))
    sequences: list[tuple[str, ...]] = []
    for length, count in ROUNDS:
        sequences += followers(guests, sequences, length)[:count]
    for sequence in sequences:
        print("    (" + ", ".join(f'"{name}"' for name in sequence) + "),")


if __name__ == "__main__":
    main()
