"""`celaje stop`, `start`, `reboot` and `terminate`: instances into another state, and waiting until they are in it."""

from __future__ import annotations

from celaje.cli.arguments import Parser
from celaje.cli.cloud_client import Refused, ec2
from celaje.cli.instances import found, wait_until


def stop(words: list[str]) -> int:
    """Stop instances."""
    about = "Stops instances: their disks stay, their public addresses go."
    return _change(words, "stop", about, "stop_instances", "stopped", may_force=True)


def start(words: list[str]) -> int:
    """Start instances."""
    return _change(words, "start", "Starts instances that are stopped.", "start_instances", "running")


def reboot(words: list[str]) -> int:
    """Reboot instances; the cloud does not tell when that is over."""
    return _change(words, "reboot", "Reboots instances.", "reboot_instances", None)


def terminate(words: list[str]) -> int:
    """Terminate instances."""
    about = "Terminates instances: they, and the disks that were made with them, are gone."
    return _change(words, "terminate", about, "terminate_instances", "terminated")


def _change(
    words: list[str], command: str, about: str, method: str, wanted: str | None, *, may_force: bool = False
) -> int:
    parser = Parser(command, about)
    parser.add_argument("names", nargs="+", metavar="INSTANCE", help="a name or an identifier (`celaje ls`)")
    if wanted:
        parser.add_argument("--no-wait", action="store_true", help="return when the cloud has accepted it")
    if may_force:
        parser.add_argument("--force", action="store_true", help="do not wait for the guest")
    chosen = parser.parse_args(words)
    client = ec2()
    identifiers = [one["InstanceId"] for one in found(client, chosen.names)]
    client(method, InstanceIds=identifiers, Force=True if may_force and chosen.force else None)
    waits = wanted is not None and not chosen.no_wait
    if wanted is not None and waits:
        try:
            wait_until(client, identifiers, wanted)
        except Refused as error:  # a terminated instance is not listed for ever
            if wanted != "terminated" or error.code != "InvalidInstanceID.NotFound":
                raise
    for name in chosen.names:
        print(f"{name} is {wanted}" if waits else f"{name}: the cloud has accepted it")
    return 0
