"""What the benchmark keeps: one JSON file a run; and the README's table, which is made from it and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
LATEST = RESULTS / "latest.json"
README = Path(__file__).resolve().parent.parent / "README.md"
OPENING, CLOSING = "<!-- bench -->", "<!-- /bench -->"


@dataclass
class Comparison:
    """One measurement on both emulators: seconds (medians), and the ratio (median over alternating pairs).

    `ratio` is celaje's speed over QEMU's: above 1, celaje is the faster one.
    """

    name: str
    kind: str
    celaje_seconds: float
    qemu_seconds: float | None = None
    ratio: float | None = None


@dataclass
class Report:
    """A whole run."""

    date: str
    host: str
    celaje: str
    qemu: str | None
    repeats: int
    comparisons: list[Comparison] = field(default_factory=list)
    measures: dict[str, float] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """As JSON, written aside and renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(asdict(self), indent=2) + "\n")
        aside.rename(path)


def read(path: Path = LATEST) -> Report:
    """The report in `path`, as `Report.write` left it."""
    raw: dict[str, Any] = json.loads(path.read_text())
    raw["comparisons"] = [Comparison(**one) for one in raw["comparisons"]]
    return Report(**raw)


# Name -> (what it is, with the unit that it is shown in; that unit in seconds or bytes)
MEASURES = {
    "boot_overhead_bytes": ("memory beyond the guest's own while it boots, MB", 1e6),
    "idle_overhead_bytes": ("the same, ten seconds idle at its shell, MB", 1e6),
    "machine_idle_bytes": ("the same of a machine's process forked from the template, MB", 1e6),
    "process_start_seconds": ("a machine's process, from the request to its being up, ms", 1e-3),
    "snapshot_pause_seconds_512": ("pause of a guest at work for its snapshot, 512 MiB, ms", 1e-3),
    "snapshot_pause_seconds_4096": ("the same, 4 GiB, ms", 1e-3),
    "restore_seconds_512": ("restore, from the request to the guest executing, 512 MiB, ms", 1e-3),
    "restore_seconds_4096": ("the same, 4 GiB, ms", 1e-3),
    "uart_bytes_per_second": ("what a guest writes to the emulated UART, kB/s", 1e3),
    "virtio_console_bytes_per_second": ("the same to the virtio console, kB/s", 1e3),
    "volume_speed_sequential-write": ("a hydrated volume's speed over our raw file's, sequential-write, %", 0.01),
    "volume_speed_sequential-read": ("a hydrated volume's speed over our raw file's, sequential-read, %", 0.01),
    "volume_speed_random-read": ("a hydrated volume's speed over our raw file's, random-read, %", 0.01),
    "volume_speed_random-write": ("a hydrated volume's speed over our raw file's, random-write, %", 0.01),
    "volume_speed_random-read-of-4": ("a hydrated volume's speed over our raw file's, random-read-of-4, %", 0.01),
    "volume_speed_random-write-of-4": ("a hydrated volume's speed over our raw file's, random-write-of-4, %", 0.01),
    "subnet_bytes_per_second": ("TCP from guest to guest inside one subnet, MB/s", 1e6),
    "routed_over_subnet": ("the same from subnet to subnet over that, %", 0.01),
    "other_vpc_over_subnet": ("the same to another VPC's guest by public addresses over that, %", 0.01),
    "nat_over_subnet": ("the same out by a NAT gateway, to a server outside, over that inside one subnet, %", 0.01),
    "nat_over_gateway": ("the same over that out by an internet gateway, %", 0.01),
    "api_rate_over_moto": ("requests a second of ten calls of the cloud's API over moto's server, %", 0.01),
    "api_thousand_over_moto": ("the same of DescribeInstances over 1,000 instances, %", 0.01),
    "cloud_first_up_seconds": ("`celaje up` to the first answer, a new cloud, ms", 1e-3),
    "cloud_up_seconds": ("the same, a cloud that was there, ms", 1e-3),
    "run_instances_seconds": ("RunInstances, to its answer, ms", 1e-3),
    "launch_to_ssh_seconds": ("RunInstances to the SSH banner, t3.micro, ms", 1e-3),
    "vm_run_to_ssh_seconds": ("`celaje vm run` to the SSH banner, the same size, ms", 1e-3),
    "launch_over_bar": ("a launch over 1.3 times that and half a second, %", 0.01),
    "forty_reached_seconds": ("40 instances, from the first RunInstances to SSH of all, s", 1.0),
    "forty_describe_seconds": ("DescribeInstances while 40 idle instances run, ms", 1e-3),
    "forty_bytes": ("memory of everything while 40 idle instances run, MB", 1e6),
    "forty_adopted_seconds": ("a daemon's start to 40 instances running and adopted, ms", 1e-3),
}


def readme_table(report: Report) -> str:
    """The table in Markdown. What was not measured has no line."""
    lines = ["| measured | celaje, s | QEMU (TCG), s | celaje's speed over QEMU's |", "|---|---:|---:|---:|"]
    for one in report.comparisons:
        qemu = f"{one.qemu_seconds:.2f}" if one.qemu_seconds is not None else "–"
        ratio = f"{one.ratio:.2f}" if one.ratio is not None else "–"
        lines.append(f"| {one.name} ({one.kind}) | {one.celaje_seconds:.2f} | {qemu} | {ratio} |")
    for key, (text, unit) in MEASURES.items():
        if key in report.measures:
            lines.append(f"| {text} | {report.measures[key] / unit:.0f} | | |")
    beside = report.qemu or "no QEMU"
    lines += ["", f"{report.host}; {beside}; medians of {report.repeats} alternating pairs, {report.date}."]
    return "\n".join(lines)


def fill(readme: str, report: Report) -> str:
    """`readme` with the table between its two bench comments made anew."""
    before, rest = readme.split(OPENING, 1)
    _, after = rest.split(CLOSING, 1)
    return f"{before}{OPENING}\n{readme_table(report)}\n{CLOSING}{after}"
