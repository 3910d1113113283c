"""`celaje ssh` while the cloud is down: its instances run on, and are reached as the machines that they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from celaje.cli import command
from celaje.cli.ssh import only_key
from tests.machine_processes import Machines
from tests.system.test_vm_run import ECHO

INSTANCE = "i-0123456789abcdef0"


@pytest.fixture(autouse=True)
def without_a_cloud(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


def test_what_only_a_cloud_may_know_says_how_to_start_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["ssh", "web", "true"]) == 2
    assert capsys.readouterr().err.endswith("no cloud runs here that may know it: celaje up --detach\n")


def test_an_instance_is_found_without_its_cloud(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "echo").write_bytes(ECHO)
    assert command.main(["vm", "start", INSTANCE, "--firmware", str(tmp_path / "echo"), "--memory", "16M"]) == 0
    assert command.main(["ssh", INSTANCE, "true"]) == 2
    assert "has no network" in capsys.readouterr().err


@pytest.mark.parametrize(("kept", "taken"), [((), None), (("a",), "a"), (("a", "b"), None)])
def test_its_key_is_the_only_one_that_is_kept(tmp_path: Path, kept: tuple[str, ...], taken: str | None) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in kept:
        (keys / f"{name}.pem").touch()
    assert only_key(tmp_path) == (keys / f"{taken}.pem" if taken else None)
