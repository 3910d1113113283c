from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from celaje import paths
from celaje.errors import GuestError, HostError, ImageError, NotFound
from celaje.image import recipes, store
from celaje.image.bundle import Bundle


def maker(kernel: bytes = b"kernel") -> Callable[[Path], Bundle]:
    def make(directory: Path) -> Bundle:
        (directory / "kernel").write_bytes(kernel)
        with open(directory / "disk.raw", "wb") as disk:
            disk.truncate(8 << 20)
        files = {"kernel": directory / "kernel", "disk": directory / "disk.raw"}
        return Bundle("kernel", "riscv64", "quiet", files, {"libc6": "2.41"}, 1_700_000_000)

    return make


def content(image: store.Image, role: str) -> bytes:
    path = image.file(role)
    assert path is not None
    return path.read_bytes()


def everything(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if not path.name.endswith(".lock")}


def test_a_published_image_is_listed_and_opened_by_name_and_by_path() -> None:
    made = store.publish("one", maker())
    assert store.names() == ["one"]
    assert [image.description.name for image in recipes.images()] == ["one"]
    opened = store.open_image("one")
    assert opened == made == store.open_image(str(paths.home() / "images" / "one"))
    assert store.open_image(str(made.directory / "image.json")) == made
    assert content(opened, "kernel") == b"kernel"
    assert len(content(opened, "disk")) == 8 << 20
    assert opened.file("initrd") is None
    assert opened.size < 1 << 20  # the disk is sparse


def test_an_image_can_be_copied_elsewhere_and_opened_there(tmp_path: Path) -> None:
    made = store.publish("one", maker())
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in made.directory.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert store.open_image(str(copy)).description == made.description


def test_a_new_build_replaces_the_old_one_and_leaves_nothing_of_it() -> None:
    old = store.publish("one", maker(b"old"))
    with open(old.directory / "kernel", "rb") as held:
        new = store.publish("one", maker(b"new"))
        assert held.read() == b"old"  # whoever has it open keeps it
    assert content(store.open_image("one"), "kernel") == b"new"
    assert everything(store.images_directory()) == {"one", new.directory.name}


@pytest.mark.parametrize(
    ("failure", "raised", "said"),
    [
        (GuestError("died"), GuestError, "died"),
        (OSError(errno.ENOSPC, "No space left on device"), HostError, "the disk is full"),
        (KeyboardInterrupt("Ctrl-C"), KeyboardInterrupt, "Ctrl-C"),
    ],
)
def test_a_build_that_fails_leaves_the_old_image_and_nothing_half_made(
    failure: BaseException, raised: type[BaseException], said: str
) -> None:
    old = store.publish("one", maker(b"old"))

    def make(directory: Path) -> Bundle:
        (directory / "kernel").write_bytes(b"half")
        raise failure

    with pytest.raises(raised, match=said):
        store.publish("one", make)
    assert everything(store.images_directory()) == {"one", old.directory.name}
    assert store.open_image("one") == old


def test_what_a_killed_build_left_is_removed_by_the_next() -> None:
    leftover = paths.made(store.images_directory()) / f".one.{'0' * 16}"
    leftover.mkdir()
    (leftover / "disk.raw").write_bytes(b"half")
    others = store.images_directory() / f".one.two.{'0' * 16}"
    others.mkdir()
    store.publish("one", maker())
    assert not leftover.exists()
    assert others.exists()  # it is another image's, which may be in the making


def test_two_builds_of_one_name_do_not_mix() -> None:
    started, finish = threading.Event(), threading.Event()

    def slow(directory: Path) -> Bundle:
        started.set()
        assert finish.wait(30)
        return maker(b"first")(directory)

    first = threading.Thread(target=store.publish, args=("one", slow))
    first.start()
    assert started.wait(30)
    try:
        with pytest.raises(HostError, match="another celaje"):
            store.publish("one", maker(b"second"))
    finally:
        finish.set()
        first.join()
    assert content(store.open_image("one"), "kernel") == b"first"


def test_a_removed_image_is_gone_with_all_its_files() -> None:
    store.publish("one", maker())
    store.remove("one")
    assert store.names() == []
    assert everything(store.images_directory()) == set()
    with pytest.raises(NotFound, match="celaje image build"):
        store.remove("one")


def test_an_image_that_a_person_copied_in_can_be_removed_and_replaced() -> None:
    made = store.publish("one", maker())
    link = store.images_directory() / "one"
    link.unlink()
    os.rename(made.directory, link)
    assert store.names() == ["one"]
    store.publish("one", maker(b"new"))
    assert content(store.open_image("one"), "kernel") == b"new"
    (current,) = everything(store.images_directory()) - {"one"}
    link.unlink()
    os.rename(store.images_directory() / current, link)
    store.remove("one")
    assert everything(store.images_directory()) == set()


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(NotFound, match="none yet.*celaje image build debian-mini"):
        store.open_image("two")
    store.publish("one", maker())
    with pytest.raises(NotFound, match="there are: one"):
        store.open_image("two")
    with pytest.raises(NotFound, match="no image at"):
        store.open_image("./two")


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is no image"):
        store.open_image(str(tmp_path))
    (tmp_path / "disk.raw").write_bytes(b"x")
    with pytest.raises(ImageError, match="--disk"):
        store.open_image(str(tmp_path / "disk.raw"))
    with pytest.raises(ImageError, match="an image's name"):
        store.open_image("UPPER")


@pytest.mark.parametrize("name", ["kernel", "disk.raw"])
def test_a_changed_file_fails_its_hash(name: str) -> None:
    made = store.publish("one", maker())
    with open(made.directory / name, "r+b") as file:
        file.seek(3)
        file.write(b"!")
    with pytest.raises(ImageError, match=rf"{name} fails its hash.*celaje image build one"):
        store.open_image("one")
    with pytest.raises(ImageError, match="fails its hash"):
        recipes.verify("one")


def test_a_file_of_another_size_or_none_is_refused() -> None:
    made = store.publish("one", maker())
    with open(made.directory / "kernel", "ab") as file:
        file.write(b"more")
    with pytest.raises(ImageError, match="must have 6 bytes, not 10"):
        store.open_image("one")
    (made.directory / "kernel").unlink()
    with pytest.raises(ImageError, match="missing"):
        store.open_image("one")


def test_an_unchanged_image_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store.publish("one", maker())
    read: list[str] = []
    whole = store.verify

    def watched(image: store.Image) -> None:
        read.append(image.description.name)
        whole(image)

    monkeypatch.setattr(store, "verify", watched)
    store.open_image("one")
    assert read == []
    kernel = store.open_image("one").file("kernel")
    assert kernel is not None
    os.utime(kernel, (1, 1))
    store.open_image("one")
    store.open_image("one")
    assert read == ["one"]


def test_a_damage_that_keeps_size_and_time_is_found_by_verifying() -> None:
    made = store.publish("one", maker())
    seen: list[tuple[str, int, int]] = []
    store.verify(made, lambda *told: seen.append(told))
    assert ("kernel", 6, 6) in seen
    (made.directory / "kernel").write_bytes(b"kernal")
    with pytest.raises(ImageError, match="fails its hash"):
        store.verify(made)


def test_a_cache_that_cannot_be_written_stops_no_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CELAJE_CACHE", str(tmp_path / "file"))
    store.publish("one", maker())
    assert store.open_image("one").description.name == "one"


def test_an_unknown_recipe_says_which_there_are() -> None:
    with pytest.raises(NotFound, match="debian-mini, debian-mini-firmware"):
        recipes.build("windows", lambda run: "")
