"""A machine's further network cards: plugged in and out by its process, found again by their documents."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from celaje.cli import command
from celaje.errors import CelajeError, InputError, UsageError
from celaje.host import messages, starting
from celaje.host.control import Control, kill
from celaje.host.interface_file import (
    further_interfaces,
    read_interface,
    remove_interface,
    update_interface,
    write_interface,
)
from celaje.host.machine_snapshot import make_machine
from celaje.host.record import MachineDirectory
from celaje.network import client
from celaje.network.messages import Attach, Bandwidth, Forward, NetworkSettings
from tests.machine_processes import Machines, end, wait_until

NETWORK = NetworkSettings(name="further")
CARD = Attach(network=NETWORK, interface="one-1", host_name="one-1", mac="02:00:00:00:00:11")


def asked(directory: MachineDirectory, request: messages.Request) -> messages.Description:
    with Control(directory) as control:
        control.ask(request, messages.Done)
        return control.ask(messages.Describe(), messages.Description)


def attached() -> list[str]:
    return [one.interface for one in client.interfaces("further")]


def test_a_card_comes_while_the_machine_runs_and_goes_again(machines: Machines) -> None:
    directory = machines.started("one", cards=2)
    write_interface(directory, CARD, 1)
    described = asked(directory, messages.AttachInterface(number=1))
    assert described.further_networks[1].mac == CARD.mac
    assert asked(directory, messages.AttachInterface(number=1)) == described
    assert attached() == ["one-1"]
    with pytest.raises(UsageError, match="remove its document"):
        asked(directory, messages.DetachInterface(number=1))
    remove_interface(directory, 1)
    assert asked(directory, messages.DetachInterface(number=1)).further_networks == {}
    assert asked(directory, messages.DetachInterface(number=1)).further_networks == {}
    wait_until(lambda: attached() == [])
    write_interface(directory, CARD, 1)
    assert asked(directory, messages.AttachInterface(number=1)).further_networks[1].mac == CARD.mac


def test_the_list_of_machines_has_cards_that_are_there_and_those_of_the_next_start(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed() -> list[dict[str, object]]:
        assert command.main(["vm", "ls", "--json"]) == 0
        (one,) = json.loads(capsys.readouterr().out)
        return list(one["cards"])

    directory = machines.started("one", cards=2)
    assert listed() == []
    write_interface(directory, CARD, 1)
    (waiting,) = listed()
    assert (waiting["card"], waiting["mac"], waiting["address"]) == (1, CARD.mac, None)
    described = asked(directory, messages.AttachInterface(number=1)).further_networks[1]
    (there,) = listed()
    assert there == {
        "card": 1, "network": "further", "mac": CARD.mac, "address": described.address,
        "public_address": described.public_address,
    }  # fmt: skip
    assert command.main(["vm", "ls"]) == 0
    assert described.address in capsys.readouterr().out


def test_a_card_is_there_again_after_a_start_and_after_its_network_died(machines: Machines) -> None:
    directory = machines.made("one", cards=1)
    write_interface(directory, CARD, 1)
    starting.start(directory)
    assert attached() == ["one-1"]
    end(client.statistics("further").process)
    wait_until(lambda: attached() == ["one-1"])
    kill(directory)
    starting.start(directory)
    wait_until(lambda: attached() == ["one-1"])


def test_what_a_card_may_do_changes_while_it_is_plugged_in(machines: Machines) -> None:
    directory = machines.made("one", cards=1)
    write_interface(directory, CARD, 1)
    starting.start(directory)
    update_interface(directory, msgspec.structs.replace(CARD, bandwidth=Bandwidth(5000, 5000)), 1)
    found = read_interface(directory, 1)
    assert found is not None
    assert found.bandwidth == Bandwidth(5000, 5000)
    with pytest.raises(InputError, match="the mac of one-1 cannot change"):
        update_interface(directory, msgspec.structs.replace(CARD, mac="02:00:00:00:00:12"), 1)


@pytest.mark.parametrize("number", [2, 14])
def test_a_machine_has_room_for_so_many(machines: Machines, number: int) -> None:
    directory = machines.started("one", cards=1)
    write_interface(directory, CARD, number)
    with pytest.raises(CelajeError, match="has room for 1 network cards beyond its first"):
        asked(directory, messages.AttachInterface(number=number))


def test_a_card_without_a_document_or_with_the_machines_name_is_refused(machines: Machines) -> None:
    directory = machines.started("one", cards=1)
    with pytest.raises(CelajeError, match="no document"):
        asked(directory, messages.AttachInterface(number=1))
    with pytest.raises(InputError, match="needs a name of its own"):
        write_interface(directory, msgspec.structs.replace(CARD, interface="one"), 1)
    assert further_interfaces(directory) == []


def test_a_snapshot_holds_further_cards_but_opens_nothing_of_the_host(machines: Machines, tmp_path: Path) -> None:
    directory = machines.made("one", cards=2)
    forward = Forward("tcp", "127.0.0.1", 0, 22)
    write_interface(directory, msgspec.structs.replace(CARD, forwards=(forward,), bandwidth=Bandwidth(5000, 6000)), 2)
    starting.start(directory)
    path = tmp_path / "snapshot"
    with Control(directory) as control:
        control.ask(messages.Snapshot(path=str(path)), messages.SnapshotTaken)
        card = control.ask(messages.Describe(), messages.Description).further_networks[2]
    kill(directory)
    made = make_machine("two", path)
    found = read_interface(made.directory, 2)
    assert found is not None
    assert (found.interface, found.mac, found.address) == ("two-2", CARD.mac, card.address)
    assert (found.network.name, found.bandwidth, found.forwards) == ("further", Bandwidth(5000, 6000), ())
    starting.start(made.directory)
    with Control(made.directory) as control:
        described = control.ask(messages.Describe(), messages.Description).further_networks[2]
    assert (described.mac, described.address) == (card.mac, card.address)
