"""`celaje vm run`: a computer in this terminal until it ends; how it ended is a line on stderr and the exit status."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser
from celaje.cli.machine_options import (
    DISK_EPILOG,
    IMAGE_HELP,
    add_guest_options,
    add_options,
    guest_options,
    machine_options,
)
from celaje.cli.network_option import EPILOG as NETWORK_EPILOG
from celaje.machine.verdict import Verdict, VerdictKind

if TYPE_CHECKING:
    from celaje.host.machine_options import MachineOptions
    from celaje.host.network_options import NetworkOptions
    from celaje.machine.virtio.device import VirtioDevice
    from celaje.machine.virtio.net import VirtioNet

# What a person reads, and the exit status. The status of a time limit is that of timeout(1).
OUTCOMES: dict[VerdictKind, tuple[int, str]] = {
    VerdictKind.POWER_OFF: (0, "the guest powered off"),
    VerdictKind.PASS: (0, "the guest passed"),
    VerdictKind.REBOOT: (0, "the guest asked for a restart"),
    VerdictKind.LEFT: (0, "left with Ctrl-A x; the machine was switched off"),
    VerdictKind.FAIL: (1, "the guest failed"),
    VerdictKind.DIED: (3, "the guest died"),
    VerdictKind.TIMEOUT: (124, "the time limit was reached; the machine was switched off"),
}

EPILOG = f"""\
At a terminal, Ctrl-A x switches the machine off, and Ctrl-A Ctrl-A types a Ctrl-A.

An image is never written: what the guest changes goes to an overlay that is thrown away. A --disk is written, unless
it is given as FILE,readonly. With an image, --kernel, --initrd and --firmware replace what it brings (another kernel
leaves its initrd out), and --append adds to its command line.

{DISK_EPILOG}

{NETWORK_EPILOG}

Exit status: 0 power-off in order, or a bare-metal program that passed; 1 one that failed (its number is on stderr and
in the statistics); 2 wrong use or input; 3 the guest died; 124 the time limit was reached.

  celaje vm run debian-mini
  celaje vm run --kernel Image --initrd initrd.gz --append "console=ttyS0 quiet" --no-reboot
  celaje vm run --firmware fw_dynamic.elf --kernel Image --disk root.img
  celaje vm run --firmware test.elf --timeout 10 --stats stats.json"""


def parser() -> Parser:
    """The options, as `celaje vm run --help` shows them."""
    found = Parser("vm run", "Runs a computer in this terminal: an image, a kernel, a firmware.", EPILOG)
    found.add_argument("image", nargs="?", metavar="IMAGE", help=IMAGE_HELP)
    add_options(found)
    add_guest_options(found)
    found.add_argument("--stats", metavar="FILE", help="write statistics as JSON when the machine has ended")
    return found


def outcome(verdict: Verdict) -> tuple[int, str]:
    """Exit status and line for a verdict."""
    status, text = OUTCOMES[verdict.kind]
    if verdict.kind is VerdictKind.FAIL:
        text += f" with number {verdict.number}"
    return status, f"{text}: {verdict.reason}" if verdict.reason else text


def network_card(
    options: MachineOptions,
    network: NetworkOptions,
    instance: str,
    guest: tuple[tuple[str, ...], bytes | None],
    opened: contextlib.ExitStack,
) -> VirtioNet:
    """A card in the network, which its process is started for; `guest` is the keys and the user data for it. Ports that
    the host chose are told on stderr."""
    from celaje.host.network_card import attach_request, card_of_free_name, metadata

    card = card_of_free_name(
        network.network,
        Path(options.image or options.kernel or options.firmware or "").stem,
        lambda name: attach_request(name, network, metadata=metadata(instance, name, *guest)),
    )
    opened.callback(card.close)
    if any(not forward.port for forward in network.forwards):
        for port in card.attached.ports:
            if port.forward:
                where = f"{port.host_address}:{port.host_port}"
                print(f"celaje: {where} is the guest's {port.protocol} port {port.guest_port}", file=sys.stderr)
    return card.device


def run(words: list[str]) -> int:
    """Run the machine. Returns the exit status of its verdict; raises CelajeError for wrong use or input."""
    chosen = parser().parse_args(words)
    options = machine_options(chosen)
    guest = guest_options(chosen, options)

    from celaje.cli.statistics_file import statistics_file
    from celaje.host.configuration import configuration, identity, resolved
    from celaje.host.engines import factory
    from celaje.host.record import new_instance
    from celaje.machine.machine import Machine
    from celaje.machine.terminal import standard_streams

    with statistics_file(chosen.stats) as write_statistics, contextlib.ExitStack() as opened:
        boot, instance = resolved(options), new_instance()
        devices: list[VirtioDevice] = []
        if options.network is not None:
            devices.append(network_card(options, options.network, instance, guest, opened))
        unused = opened.enter_context(contextlib.ExitStack())
        for device in devices:
            unused.callback(device.close)
        config = configuration(options, boot, devices=devices, identity=identity(instance))
        machine = opened.enter_context(Machine(config, factory(options.engine)))
        unused.pop_all()  # they are the machine's now
        with standard_streams(machine.leave) as console:
            verdict = machine.run(console)
        told = {"kind": verdict.kind.value, "number": verdict.number, "reason": verdict.reason}
        write_statistics({"verdict": told, **machine.statistics()})
    status, line = outcome(verdict)
    print(f"celaje: {line}", file=sys.stderr)
    return status
