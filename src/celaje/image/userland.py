"""The small userland of Debian's static busybox: its commands, accounts and start-up files, as a tree.

The same tree is an initramfs and, with a kernel beside it, a root file system. The layout is Debian's with merged /usr.
"""

from __future__ import annotations

from importlib import resources

from celaje.errors import ImageError
from celaje.image.tree import Tree

BUSYBOX = "usr/bin/busybox"
_FIRST_COMMANDS = b"[\0[[\0"
_NEEDED = "cat cttyhack findfs init ip modprobe mount poweroff sh switch_root tar usleep xargs".split()
_DIRECTORIES = "dev etc home mnt opt proc run srv sys usr/local/bin usr/local/sbin var/log".split()


def script(name: str) -> bytes:
    """The text of one of the files in celaje/image/userland."""
    return resources.files("celaje.image").joinpath("userland", name).read_bytes()


def busybox_commands(binary: bytes) -> tuple[str, ...]:
    """The names that `binary` answers to: a table of NUL-ended names, in byte order, that begins with `[` and `[[`.

    ImageError where there is no such table, or commands that the start-up files use are not in it.
    """
    start = binary.find(_FIRST_COMMANDS)
    names: list[bytes] = []
    while start >= 0:
        end = binary.find(b"\0", start)
        name = binary[start:end]
        if end < 0 or (names and name <= names[-1]):
            break
        names.append(name)
        start = end + 1
    commands = tuple(name.decode("ascii", "replace") for name in names)
    missing = [name for name in _NEEDED if name not in commands]
    if missing:
        raise ImageError(f"this busybox lacks commands that an image needs: {', '.join(missing)}")
    return commands


def busybox_userland(binary: bytes, hostname: str) -> Tree:
    """A root directory with busybox under all its names; root logs in on the console without a password."""
    tree = Tree()
    for directory in _DIRECTORIES:
        tree.directory(directory)
    tree.directory("root", 0o700)
    tree.directory("tmp", 0o1777)
    for name in ("bin", "sbin", "lib"):
        tree.directory(f"usr/{name}")
        tree.symlink(name, f"usr/{name}")
    tree.file(BUSYBOX, binary, 0o755)
    for command in busybox_commands(binary):
        if command != "busybox":
            tree.symlink(f"usr/bin/{command}", "busybox")
    for command in ("init", "modprobe", "poweroff", "reboot", "halt", "getty", "switch_root"):
        tree.symlink(f"usr/sbin/{command}", "../bin/busybox")
    # The kernel opens these before anything is mounted on /dev.
    tree.character_device("dev/console", 5, 1, 0o600)
    tree.character_device("dev/null", 1, 3, 0o666)
    tree.file("etc/passwd", b"root::0:0:root:/root:/bin/sh\n")
    tree.file("etc/group", b"root:x:0:\ntty:x:5:\n")
    tree.file("etc/hostname", f"{hostname}\n".encode())
    tree.file("etc/hosts", f"127.0.0.1 localhost {hostname}\n::1 localhost\n".encode())
    tree.file("etc/inittab", script("inittab"))
    tree.file("etc/profile", script("profile"))
    tree.file("etc/init.d/rcS", script("rcS"), 0o755)
    tree.file("etc/init.d/rcK", script("rcK"), 0o755)
    tree.file("etc/init.d/console", script("console"), 0o755)
    return tree
