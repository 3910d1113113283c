"""debian-13: a login prompt without a network; with one, what cloud-init makes of it, apt, a kernel that is upgraded.

The mirror that apt uses is the host's, opened to the guest (`host=tcp:PORT`): celaje's cache of Debian's archive.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.package_mirror import CachedArchive, another_kernel, serving
from tests.system.test_debian import machine
from tests.system.test_debian_services import Host, hosted

LOGIN_SECONDS = 900.0
ROUTER = "10.77.0.1"
IMDS = "http://169.254.169.254/latest"
SIGNED = "/usr/share/keyrings/debian-archive-keyring.gpg"
CONFIG = """#cloud-config
write_files:
- path: /etc/mark
  content: written
runcmd:
- id -un > /root/ran
"""
SCRIPT = "#!/bin/sh\nuname -r > /etc/mark\n"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -qy -o Acquire::Languages=none -o Dpkg::Use-Pty=0"
MACHINE = ["--network", "user", "--cpus", "2", "--memory", "1G", "--root-size", "3G"]

FindImage = Callable[[str], Path]

pytestmark = [pytest.mark.full, pytest.mark.timeout(3600)]


class Debian:
    """The machine `full`, its user admin's commands, and what the host's mirror has for it."""

    def __init__(self, host: Host, port: int, served: dict[str, Path | bytes], archive: CachedArchive) -> None:
        self.host = host
        self.mirror = f"http://{ROUTER}:{port}"
        self.served = served
        self.archive = archive

    def said(self, command: str, name: str = "full") -> list[str]:
        """The lines that a command of root's prints, as soon as the machine answers."""
        return self.host.said(f"admin@{name}", f"sudo sh -ec '{command}'", LOGIN_SECONDS)

    def run(self, command: str) -> str:
        """What a command of root's prints; it runs once and must succeed."""
        done = self.host.ssh("admin@full", f"sudo sh -ec '{command}'")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def use(self, source: str) -> None:
        """Make this the only source of apt."""
        self.run(f"rm -f /etc/apt/sources.list.d/*; echo \"{source}\" > /etc/apt/sources.list.d/test.list")
        self.run(f"{APT} update")

    def root_volume(self) -> str:
        (found,) = json.loads(self.host.celaje("vm", "ls", "--json").stdout)
        return str(found["root"])


@pytest.fixture(scope="module")
def debian(
    built_image: FindImage, outside_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Debian]:
    image = built_image("debian-13").resolve()
    directory = tmp_path_factory.mktemp("debian")
    (directory / "config").write_text(CONFIG)
    served: dict[str, Path | bytes] = {}
    with serving(served) as port, hosted(outside_environment["HOME"], directory) as host:
        words = ["--ssh-key", f"{host.key}.pub", "--user-data", directory / "config"]
        host.start("full", image, *MACHINE, "--network", f"user,host=tcp:{port}", *words)
        yield Debian(host, port, served, CachedArchive.read())


def test_debian_13_boots_to_a_login_prompt(built_image: FindImage) -> None:
    image = built_image("debian-13").resolve()
    words = ["--memory", "1G", "--cpus", "2", "--network", "none", "--timeout", "1500"]
    with machine(image, *words) as console:
        said = console.wait_for("debian-13 login: ", LOGIN_SECONDS)
        assert "Failed to start" not in said


def test_cloud_init_sets_it_up_from_ec2s_metadata(debian: Debian) -> None:
    status = debian.said("cloud-init status --wait --long")
    assert "status: done" in status
    assert "errors: []" in status
    assert any("DataSourceEc2" in line for line in status)
    # As Debian ships it cloud-init knows EC2 by what firmware says of the machine, and then reads by version 2.
    assert debian.said("cat /sys/class/dmi/id/product_uuid")[0].startswith("ec2")
    assert int(debian.said("grep -c \"Fetching Ec2 IMDSv2 API Token\" /var/log/cloud-init.log")[0]) >= 1
    token = f"curl -sf -X PUT {IMDS}/api/token -H \"X-aws-ec2-metadata-token-ttl-seconds: 60\""
    read = f"curl -sf {IMDS}/meta-data/instance-id -H \"X-aws-ec2-metadata-token: $({token})\""
    (by_token, known) = debian.said(f"{read}; echo; cloud-init query instance_id")
    assert by_token == known
    assert debian.said("hostname; cat /etc/mark /root/ran; getent passwd admin | cut -d: -f1") == [
        "full",
        "writtenroot",
        "admin",
    ]
    (blocks,) = debian.said("df --output=size -m / | tail -n 1")
    assert int(blocks) > 2700
    assert debian.said("systemctl --failed --no-legend --plain") == []
    assert debian.said("sshd -T | grep ^passwordauthentication") == ["passwordauthentication no"]


def test_apt_installs_from_a_mirror_on_the_hosts_loopback(debian: Debian) -> None:
    for name in ("dropbear-bin", "libtomcrypt1", "libtommath1"):
        debian.archive.package(name)
    debian.served.update({f"debian/{path}": file for path, file in debian.archive.files.items()})
    debian.use(f"deb [signed-by={SIGNED}] {debian.mirror}/debian trixie main")
    said = debian.run(f"{APT} install --no-install-recommends dropbear-bin")
    assert "Setting up dropbear-bin" in said
    assert "Dropbear" in debian.run("dropbear -V 2>&1")


def test_a_guest_that_upgrades_its_kernel_boots_the_new_one(debian: Debian, tmp_path: Path) -> None:
    old = debian.said("uname -r")[0]
    new, files = another_kernel(debian.archive)
    assert new != old
    debian.served.update({f"kernel/{path}": content for path, content in files.items()})
    debian.use(f"deb [trusted=yes] {debian.mirror}/kernel ./")
    debian.run(f"{APT} install --no-install-recommends linux-image-{new}")
    assert debian.run("readlink /boot/vmlinux /vmlinux /boot/vmlinuz /vmlinuz || true").count(new) >= 1
    debian.host.celaje("vm", "stop", "full")
    debian.host.celaje("vm", "image", "create", "upgraded", "--volume", debian.root_volume())

    (tmp_path / "script").write_text(SCRIPT)
    words = ["--ssh-key", f"{debian.host.key}.pub", "--user-data", tmp_path / "script"]
    debian.host.start("upgraded", "upgraded", *MACHINE, *words)
    assert debian.said("cloud-init status --wait", "upgraded")[-1] == "status: done"
    # It runs the new kernel with the new kernel's modules, and is a machine of its own.
    assert debian.said("uname -r; hostname; cat /etc/mark", "upgraded") == [new, "upgraded", new]
    assert debian.said("systemctl --failed --no-legend --plain", "upgraded") == []
    debian.host.celaje("vm", "stop", "upgraded")
