from __future__ import annotations

import gzip
import lzma

import pytest

from celaje import zstandard
from celaje.errors import ImageError
from celaje.image.kernel_modules import KernelModules, module_name, without_signature
from celaje.image.tree import Tree

DIRECTORY = "usr/lib/modules/6.12-test"


def module(**said: str | list[str]) -> bytes:
    """What matters of a module: ELF magic, and text of the form key=value between NUL bytes."""
    pairs = [
        (key, value) for key, values in said.items() for value in ([values] if isinstance(values, str) else values)
    ]
    return b"\x7fELF junk\0" + b"".join(f"{key}={value}\0".encode() for key, value in pairs) + b"more"


def kernel(files: dict[str, bytes], builtin: str = "", builtin_info: bytes = b"") -> KernelModules:
    tree = Tree()
    for path, content in files.items():
        tree.file(f"{DIRECTORY}/{path}", content)
    tree.file(f"{DIRECTORY}/modules.builtin", builtin.encode())
    tree.file(f"{DIRECTORY}/modules.builtin.modinfo", builtin_info)
    return KernelModules(tree, DIRECTORY)


EXT4 = {
    "kernel/fs/ext4/ext4.ko.xz": lzma.compress(module(depends="jbd2,mbcache,crc16", alias=["fs-ext4"])),
    "kernel/fs/jbd2/jbd2.ko.xz": lzma.compress(module(depends="", softdep="pre: crypto-crc32c")),
    "kernel/fs/mbcache.ko.gz": gzip.compress(module(depends="")),
    "kernel/lib/crc16.ko.zst": zstandard.compress(module(depends="")),
    "kernel/crypto/crc32c_generic.ko": module(depends="", alias=["crc32c", "crypto-crc32c"]),
    "kernel/drivers/char/hw_random/virtio-rng.ko": module(depends="rng-core", alias=["virtio:d00000004v*"]),
}


def test_a_name_is_the_files_with_underscores() -> None:
    assert module_name("kernel/drivers/char/hw_random/virtio-rng.ko.xz") == "virtio_rng"


def test_the_closure_has_every_module_after_what_it_needs() -> None:
    names = [one.name for one in kernel(EXT4).closure(["ext4"])]
    assert set(names) == {"ext4", "jbd2", "mbcache", "crc16", "crc32c_generic"}
    assert names.index("crc32c_generic") < names.index("jbd2") < names.index("ext4")


def test_what_is_built_in_is_not_needed() -> None:
    builtin = "kernel/lib/crc16.ko\nkernel/drivers/char/hw_random/rng-core.ko\n"
    modules = kernel(EXT4, builtin, b"crc32c_generic.alias=crypto-crc32c\0")
    assert {one.name for one in modules.closure(["ext4", "virtio-rng"])} == {"ext4", "jbd2", "mbcache", "virtio_rng"}
    assert modules.closure(["crc16"]) == []


def test_a_missing_module_is_an_error_that_names_it() -> None:
    with pytest.raises(ImageError, match="'rng_core'"):
        kernel(EXT4).closure(["virtio_rng"])


def test_modules_that_need_each_other_are_refused() -> None:
    modules = kernel({"kernel/a.ko": module(depends="b"), "kernel/b.ko": module(depends="a")})
    with pytest.raises(ImageError, match="a -> b -> a"):
        modules.closure(["a"])


def test_the_tables_are_what_modprobe_reads() -> None:
    modules = kernel(EXT4)
    tables = dict(modules.tables(modules.closure(["ext4"])))
    dependencies = dict(line.split(":", 1) for line in tables["modules.dep"].splitlines())
    assert dependencies["kernel/fs/jbd2/jbd2.ko"].split() == ["kernel/crypto/crc32c_generic.ko"]
    needed = dependencies["kernel/fs/ext4/ext4.ko"].split()
    # Loaded from the end of the line: what jbd2 needs stands behind it.
    assert needed.index("kernel/fs/jbd2/jbd2.ko") < needed.index("kernel/crypto/crc32c_generic.ko")
    assert "alias fs-ext4 ext4" in tables["modules.alias"].splitlines()


def test_selected_modules_are_uncompressed_and_in_their_places() -> None:
    tree = kernel(EXT4).selected(["ext4"])
    assert tree.read(f"{DIRECTORY}/kernel/fs/ext4/ext4.ko").startswith(b"\x7fELF")
    assert f"{DIRECTORY}/kernel/drivers/char/hw_random/virtio-rng.ko" not in tree
    assert f"{DIRECTORY}/modules.dep" in tree


def signed(content: bytes, claimed: int | None = None) -> bytes:
    signature = b"PKCS#7 signature"
    length = len(signature) if claimed is None else claimed
    return (
        content
        + signature
        + bytes([0, 0, 2, 0, 0, 0, 0, 0])
        + length.to_bytes(4, "big")
        + b"~Module signature appended~\n"
    )


def test_a_guest_gets_modules_without_their_signatures() -> None:
    content = module(depends="")
    tree = kernel({"kernel/x.ko.xz": lzma.compress(signed(content))}).selected(["x"])
    assert tree.read(f"{DIRECTORY}/kernel/x.ko") == content
    assert without_signature(content) == content


@pytest.mark.parametrize("broken", [signed(b"\x7fELF", 10**6), b"~Module signature appended~\n"])
def test_a_signature_longer_than_its_module_is_refused(broken: bytes) -> None:
    with pytest.raises(ImageError):
        without_signature(broken)


@pytest.mark.parametrize(
    ("name", "content"), [("x.ko", b"text"), ("x.ko.xz", b"no xz"), ("x.ko.gz", b"no gz"), ("x.ko.zst", b"no zstd")]
)
def test_a_broken_module_is_refused(name: str, content: bytes) -> None:
    with pytest.raises(ImageError, match=r"x\.ko"):
        kernel({f"kernel/{name}": content}).closure(["x"])
