"""`make demo`: builds a Debian image from signed packages, boots it, types a few commands at its console, powers off.

Everything goes through the `celaje` command, as a person would do it; what the guest prints is shown as it comes.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

CELAJE = str(Path(sys.executable).with_name("celaje"))
IMAGE = "debian-mini"
PROMPT = "root@debian-mini:~# "
WHERE_IS_THE_CURSOR = b"\033[6n"
LOGIN_SECONDS = 120
ANSWER_SECONDS = 30

# What is typed in the guest, and why it is worth seeing.
COMMANDS = (
    ("uname -a", "a real Debian kernel, on a processor that is all software"),
    ("cat /proc/cpuinfo", "what that processor says it can do"),
    ("cat /proc/partitions; grep ' / ' /proc/mounts", "its disk"),
    ("cat /proc/interrupts", "its devices"),
    ("free -m", "its memory"),
    ("dd if=/dev/hwrng bs=8 count=1 2>/dev/null | hexdump -C", "random bytes from the host, over virtio"),
)


class Console:
    """The console of a machine that runs as a child process, read with patience and typed at one line at a time."""

    def __init__(self, command: list[str], stderr: int | None = None) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._keyboard = self.process.stdin.fileno()
        self._screen = self.process.stdout.fileno()
        self._unread = b""

    def wait_for(self, text: str, seconds: float) -> str:
        """Show what is printed until `text` comes; returns everything before it. RuntimeError if it does not come."""
        wanted, until = text.encode(), time.monotonic() + seconds
        while wanted not in self._unread:
            ready, _, _ = select.select([self._screen], [], [], max(0.0, until - time.monotonic()))
            more = os.read(self._screen, 65536) if ready else b""
            if not more:
                what = "the machine ended" if ready else f"{seconds:.0f} s went by"
                raise RuntimeError(f"{what} before the console showed {text!r}")
            self._show(more)
            self._unread += more
        before, self._unread = self._unread.split(wanted, 1)
        return before.decode(errors="replace")

    @staticmethod
    def _show(printed: bytes) -> None:
        """As it is, but for what is meant for a terminal that answers: carriage returns, and where is the cursor?"""
        sys.stdout.write(printed.replace(b"\r", b"").replace(WHERE_IS_THE_CURSOR, b"").decode(errors="replace"))
        sys.stdout.flush()

    def type(self, line: str) -> None:
        """Type a line and Enter."""
        os.write(self._keyboard, line.encode() + b"\n")

    def close(self) -> int:
        """Show what is left and wait for the end; the machine's exit status."""
        while more := os.read(self._screen, 65536):
            self._show(more)
        return self.process.wait(timeout=ANSWER_SECONDS)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *exception: object) -> None:
        """Whatever happened, no machine is left running."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def title(text: str) -> None:
    """A line of the demo's own, on stderr so that it is not taken for the guest's."""
    sys.stdout.flush()
    bold, plain = ("\033[1m", "\033[0m") if sys.stderr.isatty() else ("", "")
    print(f"\n{bold}── {text}{plain}", file=sys.stderr, flush=True)


def main() -> int:
    """Build, boot, show, power off."""
    if subprocess.run([CELAJE, "vm", "image", "verify", IMAGE], capture_output=True).returncode:
        title(f"celaje image build {IMAGE}")
        built = subprocess.run([CELAJE, "image", "build", IMAGE], stdin=subprocess.DEVNULL)
        if built.returncode:
            return built.returncode

    title(f"celaje vm run {IMAGE}")
    started = time.monotonic()
    with Console([CELAJE, "vm", "run", IMAGE, "--no-reboot", "--timeout", "300"]) as console:
        console.wait_for(PROMPT, LOGIN_SECONDS)
        booted = time.monotonic() - started
        for command, why in COMMANDS:
            title(why)
            console.type(command)
            console.wait_for(PROMPT, ANSWER_SECONDS)
        title("power off")
        console.type("poweroff")
        status = console.close()
    title(f"{booted:.1f} s from the command to the shell; the machine ended with status {status}")
    return status


if __name__ == "__main__":
    sys.exit(main())
