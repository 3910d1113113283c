"""`make bench`: celaje and QEMU side by side, in alternating pairs, so that what else the host does falls on both.

    python -m bench.run [--repeats 5] [--only NAME]... [--kernel FILE --initrd FILE] [--latest]

Ticks of the guest's own clock (10 MHz on both boards) time the programs, so a process's start is not in them; the boot
and the start are wall time of the whole process. What is not installed is skipped by name.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import re
import statistics
import sys
from pathlib import Path

import celaje
from bench import boot, cloud, console, disk, machines, network, network_guests, programs, volume
from bench.emulators import CELAJE, QEMU, Emulator, Finished, qemu_version, run
from bench.report import LATEST, MEASURES, README, RESULTS, Comparison, Report, fill

TICKS_PER_SECOND = 10_000_000
RESULT = re.compile(r"^RESULT (\S+) (\d+) (\d+) (\d+)\s*$", re.M)


def measured(finished: Finished) -> dict[str, tuple[float, tuple[int, int]]]:
    """From each RESULT line: its name -> (seconds, (iterations, checksum))."""
    return {
        name: (int(ticks) / TICKS_PER_SECOND, (int(iterations), int(checksum)))
        for name, iterations, ticks, checksum in RESULT.findall(finished.output)
    }


def compare(name: str, kind: str, pairs: list[tuple[float, float | None]]) -> Comparison:
    """Medians over pairs of (celaje's seconds, QEMU's)."""
    celaje_seconds = statistics.median(first for first, _ in pairs)
    both = [(first, second) for first, second in pairs if second is not None]
    if not both:
        return Comparison(name, kind, celaje_seconds)
    return Comparison(
        name,
        kind,
        celaje_seconds,
        statistics.median(second for _, second in both),
        statistics.median(second / first for first, second in both),
    )


def program_pairs(name: str, contestants: list[Emulator], repeats: int) -> dict[str, list[tuple[float, float | None]]]:
    """Run one program `repeats` times on each. RuntimeError when the two do not compute the same."""
    elf = programs.program(name)
    pairs: dict[str, list[tuple[float, float | None]]] = {}
    for _ in range(repeats):
        rounds = [measured(run(contestant.firmware(elf, "256M"))) for contestant in contestants]
        if not rounds[0]:
            raise RuntimeError(f"{name} printed no result")
        for other in rounds[1:]:
            if {key: value[1] for key, value in other.items()} != {key: value[1] for key, value in rounds[0].items()}:
                raise RuntimeError(f"{name}: celaje and QEMU disagree: {rounds[0]} against {other}")
        for key, (seconds, _) in rounds[0].items():
            pairs.setdefault(key, []).append((seconds, rounds[1][key][0] if len(rounds) > 1 else None))
    return pairs


def start_pairs(contestants: list[Emulator], repeats: int) -> list[tuple[float, float | None]]:
    """Wall time of the whole process for a guest that ends at once."""
    elf = programs.program(programs.NOTHING)
    run(CELAJE.firmware(elf, "64M"))
    found: list[tuple[float, float | None]] = []
    for _ in range(max(repeats, 5)):
        seconds = [run(contestant.firmware(elf, "64M")).seconds for contestant in contestants]
        found.append((seconds[0], seconds[1] if len(seconds) > 1 else None))
    return found


def host() -> str:
    """The processor's name and how many of it there are."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return f"{model[1] if model else platform.machine()}, Python {platform.python_version()}"


def show(one: Comparison) -> None:
    """One line on the terminal."""
    qemu = f"{one.qemu_seconds:8.3f} s   {one.ratio:5.2f}" if one.qemu_seconds is not None else "not installed"
    print(f"{one.name:18} {one.kind:22} celaje {one.celaje_seconds:8.3f} s   QEMU {qemu}", flush=True)


def main(words: list[str] | None = None) -> int:
    """Measure everything that can be measured here."""
    parser = argparse.ArgumentParser(prog="make bench", description="celaje and QEMU side by side")
    parser.add_argument("--repeats", type=int, default=5, help="alternating pairs of each (5)")
    parser.add_argument(
        "--only",
        action="append",
        help="only this program, or `start`, `boot`, `network`, `disk`, `volume`, `console`, `machines`, `routes` or "
        "`cloud` (repeatable)",
    )
    parser.add_argument("--kernel", type=Path, help="a Linux kernel to boot instead of debian-mini's")
    parser.add_argument("--initrd", type=Path, help="its initrd, which prints a line that begins with " + boot.USERLAND)
    parser.add_argument("--latest", action="store_true", help="keep the report, and fill the README's table from it")
    chosen = parser.parse_args(words)

    now = datetime.datetime.now(datetime.UTC)
    version = qemu_version()
    report = Report(now.date().isoformat(), host(), celaje.__version__, version, chosen.repeats)
    contestants = [CELAJE, QEMU] if version else [CELAJE]
    if version is None:
        report.skipped.append("QEMU: qemu-system-riscv64 is not installed (Debian: qemu-system-misc)")

    def wanted(name: str) -> bool:
        return not chosen.only or name in chosen.only

    def add(one: Comparison) -> None:
        report.comparisons.append(one)
        show(one)

    missing = programs.compiler_missing()
    if missing:
        report.skipped.append(f"programs: {missing}")
    else:
        for name, kind in programs.PROGRAMS.items():
            if wanted(name):
                for key, pairs in program_pairs(name, contestants, chosen.repeats).items():
                    add(compare(key, kind, pairs))
        if wanted("start"):
            add(compare("start and power-off", "an empty guest", start_pairs(contestants, chosen.repeats)))
    if wanted("boot"):
        files = boot.files(chosen.kernel, chosen.initrd)
        if isinstance(files, str):
            report.skipped.append(f"boot: {files}")
        else:
            boot.first_line(CELAJE, files)  # the bar speaks of the second start onward
            pairs = [
                (boot.first_line(CELAJE, files), boot.first_line(QEMU, files) if version else None)
                for _ in range(chosen.repeats)
            ]
            add(compare("boot to userland", "Debian kernel, busybox", pairs))
            report.measures |= boot.memory(files)
    if wanted("network"):
        files = boot.files(chosen.kernel, chosen.initrd)
        if isinstance(files, str) or missing:
            report.skipped.append(f"network: {missing or files}")
        else:
            for name, measured_pairs in network.pairs(contestants, files, chosen.repeats).items():
                kind = network.KINDS[network.MEASUREMENTS[name][0]]
                add(compare(name, kind, measured_pairs))
    if wanted("disk"):
        files = boot.files(chosen.kernel, chosen.initrd)
        if isinstance(files, str) or missing:
            report.skipped.append(f"disk: {missing or files}")
        else:
            for bus in disk.BUSES:
                for name, disk_pairs in disk.pairs(contestants, files, bus, chosen.repeats).items():
                    add(compare(f"{bus} {name}", disk.KINDS[name], disk_pairs))
    if wanted("machines"):
        files = boot.files(chosen.kernel, chosen.initrd)
        if isinstance(files, str) or missing:
            report.skipped.append(f"machines: {missing or files}")
        else:
            report.measures |= machines.measures(files, chosen.repeats)
    if wanted("volume"):
        files = boot.files(chosen.kernel, chosen.initrd)
        if isinstance(files, str) or missing:
            report.skipped.append(f"volume: {missing or files}")
        else:
            report.measures |= volume.measures(files, chosen.repeats)
    if wanted("console"):
        files = boot.files(chosen.kernel, chosen.initrd)
        if isinstance(files, str) or missing:
            report.skipped.append(f"console: {missing or files}")
        else:
            report.measures |= console.measures(files, chosen.repeats)
    if wanted("routes"):
        if (why := network_guests.missing()) is not None:
            report.skipped.append(f"routes: {why}")
        else:
            report.measures |= network_guests.measures(chosen.repeats)
    if wanted("cloud"):
        if (why := cloud.missing()) is not None:
            report.skipped.append(f"cloud: {why}")
        else:
            if (why := cloud.peer_missing()) is not None:
                report.skipped.append(why)
            report.measures |= cloud.measures(chosen.repeats)
    for text in report.skipped:
        print("skipped:", text)
    for key, value in report.measures.items():
        text, unit = MEASURES[key]
        print(f"{value / unit:8.1f}  {text}")
    report.write(RESULTS / f"{now:%Y%m%dT%H%M%S}.json")
    if chosen.latest:
        report.write(LATEST)
        README.write_text(fill(README.read_text(), report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
