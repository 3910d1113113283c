"""Random programs on celaje and on QEMU, side by side.

    python -m tests.differential                           # a run as the tests make it, with a new seed
    python -m tests.differential --seed 7 --engine translate          # one program again
    python -m tests.differential --seed 7 --programs 50 --xlen 32 --extensions F,D,Zicsr

Needs qemu-riscv64 (and qemu-riscv32) of Debian's package qemu-user. Exit status 1 where they differ.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time

from tests.differential.comparison import explained
from tests.differential.peers import ENGINES, Celaje, Qemu
from tests.differential.program import EXTENSIONS, random_program


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--seed", type=int, help="the first program's seed; each further program has the next one")
    parser.add_argument("--programs", type=int, help="how many (1 with --seed, else 50)")
    parser.add_argument("--length", type=int, default=2000, help="instructions in a program")
    parser.add_argument("--engine", choices=ENGINES, default="evaluate")
    parser.add_argument("--xlen", type=int, choices=(32, 64), default=64)
    parser.add_argument("--extensions", default="", help=f"of {','.join(EXTENSIONS)}")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first difference")
    options = parser.parse_args()
    if not Qemu.find(options.xlen):
        parser.error(f"qemu-riscv{options.xlen} is not here; it is in Debian's package qemu-user")
    first = options.seed if options.seed is not None else secrets.randbelow(1 << 32)
    programs = options.programs or (50 if options.seed is None else 1)
    qemu, celaje = Qemu(options.xlen), Celaje(options.engine, options.xlen)
    extensions = options.extensions.split(",") if options.extensions else EXTENSIONS
    began, instructions, wrong = time.monotonic(), 0, 0
    for seed in range(first, first + programs):
        program = random_program(seed, options.xlen, options.length, extensions, qemu.cannot)
        instructions += program.instructions
        explanation = explained(program, celaje.run, qemu.run)
        if explanation:
            print(explanation)
            wrong += 1
            if not options.keep_going:
                break
    seconds = time.monotonic() - began
    print(f"seeds from {first}: {instructions} instructions in {seconds:.1f} s, {wrong} programs differ")
    qemu.close()
    celaje.close()
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
