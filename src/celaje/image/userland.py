"""The small userland of Debian's static busybox: its commands, accounts and start-up files, as a tree.

The same tree is an initramfs and, with a kernel beside it, a root file system. The layout is Debian's with merged /usr.

    init, inittab, rcS, rcK, console, profile     the way to root's shell on the console, and off again
    services                                      what goes on beside it:
      devices, mdev.conf, disk-links, power-button  devices that come and go, /dev/disk/by-id
      slot                                          those that the kernel does not see by itself
      clock                                         the date after the machine went on from a snapshot
      network, dhcp, hostname                       addresses, routes, resolver, name
      metadata, user-data, ssh                      keys, name and script of an instance; logging in from outside
      grow-partition (in the initramfs), grow-root  a disk that has become larger
"""

from __future__ import annotations

from importlib import resources

from celaje.errors import ImageError
from celaje.image.tree import Tree

BUSYBOX = "usr/bin/busybox"
_FIRST_COMMANDS = b"[\0[[\0"
_NEEDED = (
    "acpid awk blockdev cat cmp crc32 cttyhack cut date dd find findfs grep head hostname init ip ln mdev modprobe "
    "mount nc od poweroff readlink sh sleep sort switch_root tail tar timeout touch tr udhcpc usleep wget xargs"
).split()
_DIRECTORIES = "dev etc home mnt opt proc run srv sys usr/local/bin usr/local/sbin var/lib var/log".split()
_PROGRAMS = {
    **{f"etc/init.d/{name}": name for name in "rcS rcK console services devices network hostname metadata".split()},
    **{f"etc/init.d/{name}": name for name in "user-data ssh grow-root clock".split()},
    "etc/acpi/PWRF/00000080": "power-button",  # where busybox's acpid looks for it
    "etc/udhcpc/default.script": "dhcp",
    "usr/lib/mdev/disk-links": "disk-links",
    "usr/lib/mdev/slot": "slot",
    "usr/sbin/grow-partition": "grow-partition",
}
_SETTINGS = {"etc/inittab": "inittab", "etc/profile": "profile", "etc/mdev.conf": "mdev.conf"}
ADMIN = 1000


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
    tree.file("etc/passwd", f"root::0:0:root:/root:/bin/sh\nadmin:*:{ADMIN}:{ADMIN}::/home/admin:/bin/sh\n".encode())
    tree.file("etc/group", f"root:x:0:\ntty:x:5:\nadmin:x:{ADMIN}:\n".encode())
    tree.directory("home/admin", 0o750, ADMIN, ADMIN)
    tree.file("etc/hostname", f"{hostname}\n".encode())
    tree.file("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost\n".encode())
    tree.file("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    tree.file("etc/shells", b"/bin/sh\n")
    for path, name in _SETTINGS.items():
        tree.file(path, script(name))
    for path, name in _PROGRAMS.items():
        tree.file(path, script(name), 0o755)
    return tree
