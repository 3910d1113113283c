"""The recipe, from a fabricated archive to what its machine is given. The machine itself is in tests/system."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from celaje.errors import GuestError
from celaje.image import cpio, debian_13, recipes, store
from celaje.image.archive_keys import ArchiveKeys
from celaje.image.filesystem import MachineRun
from celaje.image.installation import VERDICT_INSTALLED, system_file
from tests.image.conftest import FabricatedArchive, MirrorServer, deb_of
from tests.image.test_debian_mini import MODULES, RELEASE
from tests.image.test_userland import BUSYBOX

CONSOLE = f"""celaje: stage Unpacking
Setting up libc6:riscv64 (2.41-12) ...
Setting up dash (0.5) ...
celaje: stage Setting up
{VERDICT_INSTALLED}
"""


@pytest.fixture
def debian(fabricated: FabricatedArchive, server: MirrorServer, monkeypatch: pytest.MonkeyPatch) -> FabricatedArchive:
    """An archive with all that the recipe wants, which this host's settings lead to."""
    kernel = {f"./boot/vmlinux-{RELEASE}": b"MZ kernel", f"./usr/lib/modules/{RELEASE}/modules.builtin": b""}
    kernel |= {f"./usr/lib/modules/{RELEASE}/kernel/{path}.ko": content for path, content in MODULES.items()}
    special = {
        f"linux-image-{RELEASE}": deb_of(kernel, name=f"linux-image-{RELEASE}"),
        "e2fsprogs": deb_of({"./usr/sbin/mke2fs": b"mke2fs", "./etc/mke2fs.conf": b""}, name="e2fsprogs"),
        "systemd": deb_of({"./usr/lib/systemd/systemd": b"it", "./usr/share/man/man1/x.1": b"text"}, name="systemd"),
    }
    for name in {*debian_13.PACKAGES, *special, "dash", "libc6"}:
        depends = {"linux-image-riscv64": f"linux-image-{RELEASE}", "e2fsprogs": "libc6", "systemd": "libc6, awk"}
        content = special.get(name) or deb_of({f"./usr/share/doc/{name}/copyright": b"free"}, name=name)
        fields = "Priority: required\n" if name == "dash" else ""
        fabricated.package(name, content, depends.get(name, ""), fields=fields)
    fabricated.package("mawk", deb_of({"./usr/bin/mawk": b"mawk"}, name="mawk"), fields="Provides: awk (= 1)\n")
    fabricated.package("busybox-static", deb_of({"./usr/bin/busybox": BUSYBOX}))
    fabricated.publish()
    monkeypatch.setenv("CELAJE_DEBIAN_MIRROR", server.base)
    monkeypatch.setattr(ArchiveKeys, "of_debian", lambda: fabricated.keys)
    return fabricated


class Guest:
    """Stands where a machine installs: keeps what it was given, and leaves a file system that mke2fs made."""

    def __init__(self, mke2fs: str) -> None:
        self.mke2fs = mke2fs
        self.files: dict[str, bytes] = {}
        self.run: MachineRun | None = None
        self.initrd = b""

    def __call__(self, wanted: MachineRun) -> str:
        self.run = wanted
        disk, source = wanted.disks
        place = Path(disk.path).parent / "system"
        root = Path(disk.path).parent / "root"
        (root / "boot").mkdir(parents=True)
        (root / "boot" / f"vmlinux-{RELEASE}").write_bytes(b"the guest's kernel")
        (root / "boot" / f"initrd.img-{RELEASE}").write_bytes(b"the guest's initrd")
        with tarfile.open(source.path) as archive:
            for member in archive.getmembers():
                content = archive.extractfile(member)
                if content is not None:
                    self.files[member.name] = content.read()
        self.initrd = wanted.initrd.read_bytes()
        words = dict(word.split("=", 1) for word in wanted.command_line.split() if "=" in word)
        with open(place, "wb") as file:
            file.truncate(16 << 20)
        command = [self.mke2fs, "-q", "-t", "ext4", "-U", words["celaje.uuid"], "-d", root, place]
        subprocess.run(command, check=True, capture_output=True)
        with open(disk.path, "r+b") as file:
            file.seek(1 << 20)
            file.write(place.read_bytes())
        place.unlink()
        shutil.rmtree(root)
        for line in CONSOLE.splitlines():
            wanted.told(line)
        return CONSOLE


class Heard:
    """Progress that is remembered."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def transfer(self, name: str, done: int, total: int) -> None: ...


@pytest.mark.usefixtures("debian")
def test_the_guest_gets_the_packages_unpacked_and_the_image_what_the_guest_made(tool: Callable[[str], str]) -> None:
    guest, heard = Guest(tool("mke2fs")), Heard()
    image = recipes.build("debian-13", guest, heard).image
    assert store.open_image("debian-13") == image
    kernel, initrd = image.file("kernel"), image.file("initrd")
    assert kernel is not None
    assert initrd is not None
    assert kernel.read_bytes() == b"the guest's kernel"
    assert initrd.read_bytes() == b"the guest's initrd"
    identifier = uuid.UUID(image.description.command_line.split("root=UUID=")[1].split()[0])
    assert "ds=Ec2" in image.description.command_line.split()
    assert guest.files["etc/fstab"].startswith(f"UUID={identifier} / ext4 ".encode())
    assert {"dash", "mawk", "systemd", "libc6"} <= set(image.description.packages)
    status = guest.files["var/lib/dpkg/status"].decode()
    assert status.count("Status: install ok unpacked") == len(image.description.packages)
    assert guest.files["usr/lib/systemd/systemd"] == b"it"
    assert guest.files["usr/share/doc/dash/copyright"] == b"free"
    assert "usr/share/man/man1/x.1" not in guest.files
    assert b"name: admin" in guest.files["etc/cloud/cloud.cfg.d/90_image.cfg"]
    assert guest.files["configure"] == system_file("configure")
    marks = guest.files["var/lib/apt/extended_states"].decode()
    assert "Package: libc6\n" in marks
    assert "Package: systemd\n" not in marks
    assert guest.run is not None
    assert guest.run.harts == 2
    tools = cpio.unpack(guest.initrd)
    assert tools.read("init") == system_file("install")
    assert tools.read("usr/sbin/mke2fs") == b"mke2fs"
    assert f"usr/lib/modules/{RELEASE}/kernel/fs/ext4/ext4.ko" in tools
    packages = len(image.description.packages)
    assert f"Configuring inside a machine: dash (2 of {packages})" in heard.stages
    assert {path.name for path in image.directory.iterdir()} == {"image.json", "disk.raw", "initrd", "kernel"}


@pytest.mark.usefixtures("debian")
@pytest.mark.parametrize(
    ("console", "said"),
    [
        (
            "Setting up x (1) ...\npostinst: cannot do it\ncelaje: installation failed: dpkg ended with status 1\n",
            "installation failed: dpkg ended with status 1; its console ended with: .*cannot do it",
        ),
        ("Kernel panic - not syncing\n", "no verdict.*Kernel panic"),
    ],
)
def test_an_installation_that_fails_makes_no_image_and_says_what_the_guest_said(console: str, said: str) -> None:
    with pytest.raises(GuestError, match=said) as caught:
        recipes.build("debian-13", lambda wanted: console)
    assert "\n" not in str(caught.value)
    assert store.names() == []


def test_the_settings_for_dpkg_are_what_the_host_itself_keeps_to() -> None:
    patterns = re.findall(r"path-(exclude|include)=(.*)", system_file("dpkg.cfg").decode())
    assert {pattern.rstrip("*").lstrip("/") for kind, pattern in patterns if kind == "exclude"} == set(
        debian_13._LEFT_OUT
    )
    for path in ("usr/share/doc/dash/copyright", "usr/share/locale/locale.alias", "usr/bin/dash"):
        assert debian_13._is_kept(path)
    for path in ("usr/share/doc/dash/changelog.gz", "usr/share/locale/es/x.mo", "usr/share/man/man1/dash.1.gz"):
        assert not debian_13._is_kept(path)


@pytest.mark.parametrize("name", ["install", "configure"])
def test_the_scripts_are_shell_programs(name: str) -> None:
    shell = shutil.which("dash") or shutil.which("sh")
    assert shell is not None
    finished = subprocess.run([shell, "-n"], input=system_file(name), capture_output=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, b"")
