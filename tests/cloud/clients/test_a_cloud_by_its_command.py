"""A cloud from `celaje up` to `celaje down`, by the command alone: whatever of it needs no instance."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celaje.cli import command

Typed = Callable[..., str]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Typed]:
    """Types words after `celaje` and returns what is said, on either output; `fails` is the exit status to come."""
    monkeypatch.setenv("CELAJE_HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith("AWS_")] + ["CELAJE_ACCOUNT"]:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home" / "cloud").mkdir(parents=True)
    (tmp_path / "home" / "cloud" / "settings.json").write_text('{"images": []}')

    def type_words(*words: str, fails: int = 0) -> str:
        if words[0] == "up":  # whoever starts it ends, and it goes on
            ended = subprocess.run([sys.executable, "-m", "celaje", *words], capture_output=True, text=True, check=True)
            return ended.stdout
        status = command.main(list(words))
        said = capsys.readouterr()
        assert status == fails, said
        return said.out + said.err

    yield type_words
    type_words("down")


def test_a_cloud_is_used_and_shut_down_by_its_command(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    not_running = "no cloud runs here; start it: celaje up --detach\n"
    assert json.loads(typed("status", "--json", fails=1)) == {"running": False}
    assert typed("status", fails=1) == not_running
    for words in (("ls",), ("env",), ("launch",), ("bucket", "ls"), ("account", "ls"), ("image", "ls"), ("stop", "x")):
        assert typed(*words, fails=2) == f"celaje: {not_running}", words
    assert typed("down") == "no cloud runs here\n"

    assert "celaje launch --name web" in typed("up", "--detach", "--port", "0")
    assert typed("up", "--detach").startswith("the cloud runs already, at http://127.0.0.1:")
    status = json.loads(typed("status", "--json"))
    assert (status["running"], status["instances"], status["volumes"]) == (True, {}, 0)
    assert f"endpoint   {status['endpoint']}" in typed("status")
    assert f"answers at {status['endpoint'].removeprefix('http://')}" in typed("logs")
    assert typed("ls") == "There are no instances; this launches the first: celaje launch --name web\n"
    for verb in ("stop", "start", "reboot", "terminate", "console", "ssh"):
        assert typed(verb, "web", fails=2).endswith("there is no instance 'web'; make it: celaje launch\n"), verb

    # Volumes and snapshots, by name and by identifier.
    assert "celaje volume attach 'my data' INSTANCE" in typed("volume", "create", "--size", "1G", "--name", "my data")
    assert typed("volume", "grow", "my data", "2G") == "my data has 2 GiB\n"
    assert "InvalidParameterValue" in typed("volume", "grow", "my data", "1G", fails=2)
    assert "IncorrectState" in typed("volume", "detach", "my data", fails=2)
    [volume] = json.loads(typed("volume", "ls", "--json"))
    assert (volume["Size"], volume["State"]) == (2, "available")
    snapshot = typed("volume", "snapshot", "my data").partition(" ")[0]
    [listed] = json.loads(typed("snapshot", "ls", "--json"))
    assert (listed["SnapshotId"], listed["State"], listed["VolumeId"]) == (snapshot, "completed", volume["VolumeId"])
    assert " 2 GiB in us-east-1b" in typed("volume", "create", "--snapshot", snapshot, "--zone", "us-east-1b")
    assert "my data" in typed("volume", "ls")
    assert typed("volume", "rm", "my data") == "my data is deleted\n"
    assert typed("snapshot", "rm", snapshot) == f"{snapshot} is deleted\n"
    assert "InvalidSnapshot.NotFound" in typed("snapshot", "rm", snapshot, fails=2)
    assert "InvalidAMIID.Malformed" in typed("image", "rm", "none", fails=2)
    assert typed("image", "ls") == "There are no images; of an instance: celaje image create INSTANCE NAME\n"

    # Accounts, whose resources are apart.
    assert "eval \"$(celaje env --account 'other one')\"" in typed("account", "create", "other one")
    assert "DuplicateAccountException" in typed("account", "create", "other one", fails=2)
    assert [one["Name"] for one in json.loads(typed("account", "ls", "--json"))] == ["root", "other one"]
    variables = dict(
        shlex.split(line)[1].split("=", 1) for line in typed("env", "--account", "other one").splitlines()
    )
    assert variables["AWS_ENDPOINT_URL"] == status["endpoint"]
    assert "there are: root, other one; make one: celaje account create" in typed(
        "env", "--account", "none", fails=2
    )
    monkeypatch.setenv("CELAJE_ACCOUNT", "other one")
    assert json.loads(typed("volume", "ls", "--json")) == []
    assert f":root in us-east-1 at {status['endpoint']}" in typed("account", "whoami")
    assert typed("bucket", "create", "of-the-other").startswith("of-the-other is a bucket")
    assert "AccessDenied" in typed("account", "rm", "root", fails=2)
    monkeypatch.delenv("CELAJE_ACCOUNT")
    assert "AccessDenied" in typed("bucket", "ls", "of-the-other", fails=2)
    typed("account", "rm", "other one", fails=2)  # it has a bucket
    monkeypatch.setenv("CELAJE_ACCOUNT", "other one")
    typed("bucket", "rm", "of-the-other")
    monkeypatch.delenv("CELAJE_ACCOUNT")
    assert typed("account", "rm", "other one", "none", fails=2).startswith("celaje: there is no account 'none'")
    assert typed("account", "rm", "other one") == "other one is closed\n"
    assert [one["Name"] for one in json.loads(typed("account", "ls", "--json"))] == ["root"]

    assert typed("down").startswith("the cloud is down; instances run on")
    assert typed("ls", fails=2) == f"celaje: {not_running}"
    typed("up", "--detach", "--port", "0")
    assert len(json.loads(typed("volume", "ls", "--json"))) == 1  # what was there is there
