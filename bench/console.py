"""The emulated UART beside the paravirtual console: bytes a second that a guest writes to each.

The guest is debian-mini's kernel and initrd with a program of ours (guest/linux/console.c). Its /dev/ttyS0 is the UART,
which takes an exit for every byte; its /dev/hvc0 the virtio console, a notification for every 16 bytes that Linux's
driver sends at once.
"""

from __future__ import annotations

import re
import statistics

from bench import boot, disk
from celaje.host.engines import factory
from celaje.machine.config import MachineConfig
from celaje.machine.console import BufferConsole
from celaje.machine.machine import Machine
from celaje.machine.virtio.console import VirtioConsole

BYTES = 1 << 17
TERMINALS = {"ttyS0": "uart_bytes_per_second", "hvc0": "virtio_console_bytes_per_second"}
RESULT = re.compile(rb"RESULT (\w+) (\d+) (\d+) ")
TICKS_PER_SECOND = 10_000_000
INIT = f"""#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for pass in 1 2; do
    cat /sys/bus/*/devices/*/modalias 2>/dev/null | sort -u | xargs modprobe -a -b -q 2>/dev/null
done
for terminal in {" ".join(TERMINALS)}; do
    /bench/console /dev/$terminal {BYTES} $terminal
done
poweroff -f
"""


def once(guest: disk.Guest) -> dict[str, float]:
    """Bytes a second, by the names of report.MEASURES. RuntimeError where a terminal did not get them all."""
    uart, virtio = BufferConsole(), BufferConsole()
    config = MachineConfig(
        kernel=guest.kernel,
        initrd=guest.initrd,
        append=disk.APPEND,
        devices=[VirtioConsole(virtio)],
        no_reboot=True,
        timeout=300,
    )
    with Machine(config, factory("auto")) as machine:
        machine.run(uart)
    found = {
        TERMINALS[name.decode()]: int(count) * TICKS_PER_SECOND / int(ticks)
        for name, count, ticks in RESULT.findall(uart.output)
    }
    if found.keys() != set(TERMINALS.values()) or min(len(uart.output), len(virtio.output)) < BYTES:
        raise RuntimeError(f"the terminals got {len(uart.output)} and {len(virtio.output)} bytes, results for {found}")
    return found


def measures(files: boot.Files, repeats: int) -> dict[str, float]:
    """Medians of `once`."""
    with disk.guest(files.kernel, files.initrd, ["console"], INIT) as guest:
        rounds = [once(guest) for _ in range(repeats)]
    return {name: statistics.median(one[name] for one in rounds) for name in TERMINALS.values()}
