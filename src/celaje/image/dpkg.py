"""dpkg's database of packages that are unpacked but not configured (dpkg 1.22, lib/dpkg/fields.c; deb-triggers(5)).

    var/lib/dpkg/status                   a stanza a package: its control file, Status, Conffiles
    var/lib/dpkg/info/NAME[:ARCH].list    the paths of its files; beside it its scripts and lists as they came
    var/lib/dpkg/triggers/File, NAME      who wants to know of changes below a path, of a named event
    PATH.dpkg-new                         a configuration file until `dpkg --configure` puts it in place

The host unpacks so much faster than an emulated processor that only `dpkg --configure` is left to the guest. What the
guest's dpkg then finds is what its own `dpkg --unpack` would have left, except that no preinst script has run.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from celaje.errors import ImageError
from celaje.image.tree import Tree

ADMIN_DIRECTORY = "var/lib/dpkg"
_FIELD = re.compile(r"^([A-Za-z][A-Za-z0-9-]*):[ \t]*(.*)$", re.MULTILINE)
_MERGED = ("bin/", "lib/", "lib64/", "sbin/")


class Unpacked:
    """A root directory with packages unpacked in it, one after the other; `tree` is both files and database.

    `kept` says which of their files are unpacked at all (dpkg.cfg's path-exclude); the database lists every one.
    """

    def __init__(self, kept: Callable[[str], bool] = lambda _: True) -> None:
        self.tree = Tree()
        self._kept = kept
        self._stanzas: list[str] = []
        self._interests: dict[str, list[str]] = {}
        for name in ("alternatives", "info", "parts", "triggers", "updates"):
            self.tree.directory(f"{ADMIN_DIRECTORY}/{name}")

    def add(self, control: Tree, files: Tree, name: str) -> None:
        """Unpack the package `name`, given as its two archives. ImageError where it is malformed."""
        text = control.read("control").decode("utf-8", "replace").strip("\n")
        fields = dict(_FIELD.findall(text))
        if fields.get("Package", "") != name or "\n\n" in text or not fields.get("Architecture"):
            raise ImageError(f"the package {name} says in its control file that it is {fields.get('Package')!r}")
        same = fields.get("Multi-Arch") == "same"
        base = f"{ADMIN_DIRECTORY}/info/{name}:{fields['Architecture']}" if same else f"{ADMIN_DIRECTORY}/info/{name}"
        for member, entry in control:
            if member not in ("", "control"):
                self.tree.file(f"{base}.{member}", entry.data, entry.mode & 0o777)
        # One that an upgrade is to remove (deb-conffiles(5)) is no file of this version.
        configured = [path for path in _lines(control, "conffiles") if path.startswith("/")]
        self._place(files, {path.lstrip("/") for path in configured}, name)
        self.tree.file(f"{base}.list", "".join(f"/{path or '.'}\n" for path, _ in files).encode())
        stanza = [text, "Status: install ok unpacked"]
        if configured:
            stanza += ["Conffiles:", *(f" {path} newconffile" for path in configured)]
        self._stanzas.append("\n".join(stanza) + "\n")
        for line in _lines(control, "triggers"):
            kind, _, trigger = line.partition(" ")
            if kind.startswith("interest"):
                suffix = "/noawait" if kind == "interest-noawait" else ""
                self._interests.setdefault(trigger.strip(), []).append(name + suffix)

    def _place(self, files: Tree, configured: set[str], name: str) -> None:
        for path, entry in files:
            if not path or (entry.is_directory and f"{path}/" in _MERGED):
                continue
            # Files that a package still has below /lib belong below /usr/lib, whether /lib is there yet or not.
            place = f"usr/{path}" if path.startswith(_MERGED) else path
            if entry.is_directory:
                if self.tree.resolve(place) not in self.tree:
                    self.tree.add(place, entry, name)
            elif path in configured:
                self.tree.add(f"{place}.dpkg-new", entry, name)
            elif self._kept(path):
                self.tree.add(place, entry, name)

    def finish(self) -> Tree:
        """The tree, with the database whole."""
        self.tree.file(f"{ADMIN_DIRECTORY}/status", "\n".join(self._stanzas).encode())
        for name in ("available", "diversions", "statoverride"):
            self.tree.file(f"{ADMIN_DIRECTORY}/{name}", b"")
        self.tree.file(f"{ADMIN_DIRECTORY}/info/format", b"1\n")
        paths = []
        for trigger, names in self._interests.items():
            if trigger.startswith("/"):
                paths += [f"{trigger} {name}\n" for name in names]
            else:
                self.tree.file(f"{ADMIN_DIRECTORY}/triggers/{trigger}", "".join(f"{name}\n" for name in names).encode())
        self.tree.file(f"{ADMIN_DIRECTORY}/triggers/File", "".join(paths).encode())
        return self.tree


def _lines(control: Tree, member: str) -> list[str]:
    """The lines of a list in a package's control archive, without comments."""
    text = control.read(member).decode("utf-8", "replace") if member in control else ""
    return [line for line in (one.split("#", 1)[0].strip() for one in text.splitlines()) if line]
