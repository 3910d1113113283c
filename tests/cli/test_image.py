"""`celaje vm image ls`, `verify` and `rm`, and what `celaje vm run` does with an image."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from celaje.cli import command, vm_run
from celaje.cli.machine_options import disk, machine_options
from celaje.errors import UsageError
from celaje.host.configuration import configuration, resolved
from celaje.host.machine_options import DiskOption
from celaje.image import recipes, store
from celaje.image.bundle import Bundle
from celaje.machine.config import Disk, MachineConfig

CREATED = 1_700_000_000


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELAJE_CACHE", str(tmp_path / "cache"))


def publish(
    name: str, boot: str = "kernel", command_line: str = "quiet root=/dev/vda", revision: str = ""
) -> store.Image:
    """An image with made-up files."""
    roles = {"kernel": ("kernel", "initrd", "disk"), "firmware": ("firmware", "kernel", "disk")}[boot]

    def make(directory: Path) -> Bundle:
        files = {role: directory / role for role in roles}
        for role, path in files.items():
            path.write_bytes(role.encode() * 512)
        return Bundle(boot, "riscv64", command_line, files, {"busybox-static": "1"}, CREATED, revision=revision)

    return store.publish(name, make)


def test_an_empty_list_says_how_to_make_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["vm", "image", "ls"]) == 0
    assert "celaje image build debian-mini" in capsys.readouterr().out
    assert command.main(["vm", "image", "ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_build_unless_current_leaves_an_image_of_these_recipes_and_makes_any_other_anew(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []

    def build(recipe: str, run_machine: object, progress: object, name: str) -> recipes.Built:
        built.append(recipe)
        return recipes.Built(publish(recipe, revision=recipes.revision()), ())

    monkeypatch.setattr(recipes, "build", build)
    words = ["image", "build", "debian-mini", "--unless-current"]
    assert command.main(words) == 0
    assert command.main(words) == 0
    assert built == ["debian-mini"]
    assert "debian-mini is there, and what these recipes make" in capsys.readouterr().out
    publish("debian-mini", revision="another")
    assert command.main(words) == 0
    (store.images_directory() / "debian-mini" / "kernel").write_bytes(b"damaged")
    assert command.main(words) == 0
    assert built == ["debian-mini"] * 3
    assert command.main(words[:-1]) == 0
    assert built == ["debian-mini"] * 4


def test_images_are_listed_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    publish("one")
    publish("two", boot="firmware")
    assert command.main(["vm", "image", "ls"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["NAME", "ARCHITECTURE", "BOOT", "SIZE", "CREATED"]
    assert [line[:3] for line in lines[1:]] == [["one", "riscv64", "kernel"], ["two", "riscv64", "firmware"]]
    assert [line[-1] for line in lines[1:]] == ["2023-11-14"] * 2
    assert command.main(["vm", "image", "ls", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(entry["name"], entry["created"]) for entry in listed] == [("one", CREATED), ("two", CREATED)]


def test_an_image_that_cannot_be_read_does_not_hide_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    publish("good")
    broken = publish("broken")
    (broken.directory / "image.json").write_text("{")
    assert command.main(["vm", "image", "ls"]) == 2
    shown = capsys.readouterr()
    assert "good" in shown.out
    assert shown.err.count("\n") == 1
    assert "broken" in shown.err


def test_a_changed_file_fails_verification_and_cannot_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    image = publish("one")
    assert command.main(["vm", "image", "verify", "one"]) == 0
    assert capsys.readouterr().out == "one: 3 files are what they must be\n"
    (image.directory / "kernel").write_bytes(b"kernex" * 512)
    for words in (["vm", "image", "verify", "one"], ["vm", "run", "one"]):
        assert command.main(words) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert str(image.directory / "kernel") in said
        assert "fails its hash" in said
        assert "celaje image build one" in said


def test_a_removed_image_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    publish("one")
    assert command.main(["vm", "image", "rm", "one"]) == 0
    assert store.names() == []
    assert command.main(["vm", "image", "rm", "one"]) == 2
    assert "there is no image 'one'" in capsys.readouterr().err


def test_an_unknown_recipe_names_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["image", "build", "slackware"]) == 2
    assert "debian-mini" in capsys.readouterr().err


def described(words: list[str]) -> MachineConfig:
    """The machine that `celaje vm run` with these words is."""
    options = machine_options(vm_run.parser().parse_args(words))
    return configuration(options, resolved(options))


def test_an_image_brings_its_files_and_its_disk_is_thrown_away() -> None:
    image = publish("one")
    found = described(["one", "--append", "single", "--disk", "more,readonly"])
    assert found.kernel == image.directory / "kernel"
    assert found.initrd == image.directory / "initrd"
    assert found.firmware is None
    assert found.append == "quiet root=/dev/vda single"
    assert found.disks == [Disk(image.directory / "disk", throwaway=True)]
    assert found.scsi_disks == [Disk(Path("more"), read_only=True)]


def test_an_image_that_boots_by_firmware_brings_its_firmware() -> None:
    image = publish("two", boot="firmware", command_line="")
    found = described(["two"])
    assert (found.firmware, found.kernel) == (image.directory / "firmware", image.directory / "kernel")
    assert found.initrd is None
    assert found.append == ""


def test_a_kernel_of_ones_own_leaves_out_the_images_initrd() -> None:
    publish("one")
    found = described(["one", "--kernel", "mine"])
    assert (found.kernel, found.initrd) == (Path("mine"), None)
    assert found.append == "quiet root=/dev/vda"


def test_an_image_is_found_by_its_path_too() -> None:
    image = publish("one")
    found = described([str(image.directory)])
    assert found.kernel == image.directory / "kernel"


def test_a_disk_whose_name_has_a_comma_is_a_disk() -> None:
    assert disk("a,b") == DiskOption("a,b")
    assert disk("a,b,readonly") == DiskOption("a,b", read_only=True)
    assert disk("readonly") == DiskOption("readonly")
    assert disk("a,bus=scsi,readonly") == DiskOption("a", read_only=True, bus="scsi")
    assert disk("a,readonly,bus=virtio") == DiskOption("a", read_only=True, bus="virtio")


@pytest.mark.parametrize("text", ["", ",readonly", ",bus=scsi", "a,bus=ide"])
def test_what_is_no_disk_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="virtio|scsi"):
        disk(text)


@pytest.mark.parametrize(
    ("words", "block", "scsi"),
    [
        ([], [], None),
        (["a"], ["a"], None),
        (["a", "b", "c"], ["a"], ["b", "c"]),
        (["a,bus=virtio", "b,bus=virtio"], ["a", "b"], None),
        (["a,bus=scsi", "b", "c,bus=virtio"], ["c"], ["a", "b"]),
    ],
)
def test_the_first_disk_is_a_virtio_one_and_the_others_are_scsi_ones(
    words: list[str], block: list[str], scsi: list[str] | None
) -> None:
    found = described(["--kernel", "mine", *(word for text in words for word in ("--disk", text))])
    assert found.disks == [Disk(Path(name)) for name in block]
    assert found.scsi_disks == (None if scsi is None else [Disk(Path(name)) for name in scsi])


def test_a_run_leaves_the_images_files_as_they_were() -> None:
    """An image whose firmware only powers off runs, and its files are what they were."""
    power_off = struct.pack("<5I", 0x001002B7, 0x00005337, 0x55530313, 0x0062A023, 0x6F)

    def make(directory: Path) -> Bundle:
        (directory / "firmware").write_bytes(power_off)
        (directory / "disk").write_bytes(bytes(4096))
        return Bundle("firmware", "riscv64", "", {role: directory / role for role in ("firmware", "disk")}, {}, CREATED)

    image = store.publish("off", make)
    before = {path.name: path.stat().st_mtime_ns for path in image.directory.iterdir()}
    assert command.main(["vm", "run", "off", "--network", "none", "--engine", "evaluate", "--memory", "16M"]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in image.directory.iterdir()} == before
