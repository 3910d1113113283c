"""The wire as botocore's clients meet it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from celaje.cloud.aws import application
from celaje.cloud.aws.message import INSIDE
from tests.cloud.aws.conftest import ACCOUNT, MOMENT, Served, serving


def test_ec2_is_parsed_and_answered(served: Served) -> None:
    client = served.client("ec2")
    answer = client.describe_volumes(
        VolumeIds=["vol-1", "vol-2"], Filters=[{"Name": "status", "Values": ["available"]}], MaxResults=7
    )
    _, request = served.requests[-1]
    assert request == {
        "VolumeIds": ["vol-1", "vol-2"],
        "Filters": [{"Name": "status", "Values": ["available"]}],
        "MaxResults": 7,
    }
    (volume,) = answer["Volumes"]
    assert volume == {
        "VolumeId": "vol-1",
        "Size": 8,
        "Encrypted": False,
        "SnapshotId": "",
        "CreateTime": MOMENT,
        "Attachments": [],
        "Tags": [{"Key": "Name", "Value": 'a <b> & "c"'}],
    }
    assert answer["ResponseMetadata"]["RequestId"]


def test_an_operation_without_output_answers_true(served: Served) -> None:
    client = served.client("ec2")
    assert client.delete_volume(VolumeId="vol-1")["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_an_actions_refusal_is_the_clients_error(served: Served) -> None:
    with pytest.raises(ClientError) as refused:
        served.client("ec2").create_volume(AvailabilityZone="us-east-1a", SnapshotId="snap-refused")
    assert refused.value.response["Error"] == {
        "Code": "InvalidSnapshot.NotFound",
        "Message": "The snapshot 'snap-refused' does not exist.",
    }
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_what_is_not_implemented_says_so_by_name(served: Served) -> None:
    for service, method, arguments, code in [
        ("ec2", "describe_vpn_gateways", {}, "UnsupportedOperation"),
        ("iam", "list_users", {}, "UnsupportedOperation"),
        ("ssm", "list_commands", {}, "UnsupportedOperation"),
        ("s3", "get_bucket_website", {"Bucket": "one"}, "NotImplemented"),
    ]:
        client = served.client(service)
        with pytest.raises(ClientError, match="is not implemented by celaje yet") as refused:
            getattr(client, method)(**arguments)
        assert refused.value.response["Error"]["Code"] == code
        assert client.meta.method_to_api_mapping[method] in refused.value.response["Error"]["Message"]


def test_a_dry_run_says_what_would_have_been_and_changes_nothing(served: Served) -> None:
    client = served.client("ec2")
    woken = list(served.woken)
    with pytest.raises(ClientError) as refused:
        client.create_volume(AvailabilityZone="us-east-1a", Size=1, DryRun=True)
    assert refused.value.response["Error"]["Code"] == "DryRunOperation"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    with pytest.raises(ClientError) as refused:
        client.create_volume(AvailabilityZone="us-east-1a", SnapshotId="snap-refused", DryRun=True)
    assert refused.value.response["Error"]["Code"] == "InvalidSnapshot.NotFound"
    assert served.woken == woken


def test_a_repeated_token_gets_the_first_answer_and_other_parameters_are_refused(served: Served) -> None:
    client = served.client("ec2")
    first = client.create_volume(AvailabilityZone="us-east-1a", Size=1, ClientToken="once")
    count = len(served.requests)
    again = client.create_volume(AvailabilityZone="us-east-1a", Size=1, ClientToken="once")
    assert again["VolumeId"] == first["VolumeId"]
    assert again["CreateTime"] == first["CreateTime"]
    assert len(served.requests) == count
    with pytest.raises(ClientError) as refused:
        client.create_volume(AvailabilityZone="us-east-1a", Size=2, ClientToken="once")
    assert refused.value.response["Error"]["Code"] == "IdempotentParameterMismatch"
    elsewhere = served.client("ec2", region="eu-west-1")
    other = elsewhere.create_volume(AvailabilityZone="us-east-1a", Size=2, ClientToken="once")
    assert other["VolumeId"] != first["VolumeId"]


def test_a_token_that_is_too_long_to_keep_is_refused(served: Served) -> None:
    ec2 = served.client("ec2")
    ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, ClientToken="x" * 64)
    with pytest.raises(ClientError, match="at most 64"):
        ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, ClientToken="x" * 65)


def test_a_refused_request_does_not_use_its_token_up(served: Served) -> None:
    client = served.client("ec2")
    with pytest.raises(ClientError):
        client.create_volume(AvailabilityZone="us-east-1a", SnapshotId="snap-refused", ClientToken="twice")
    assert client.create_volume(AvailabilityZone="us-east-1a", Size=3, ClientToken="twice")["Size"] == 3


def test_a_mistake_of_celajes_is_an_internal_error_without_a_traceback(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ClientError) as refused:
        served.client("ec2").describe_regions()
    error = refused.value.response["Error"]
    assert error["Code"] == "InternalError"
    assert "ZeroDivision" not in error["Message"]
    assert "ZeroDivisionError" in caplog.text
    assert refused.value.response["ResponseMetadata"]["RequestId"] in caplog.text


def test_the_query_protocol(served: Served) -> None:
    identity = served.client("sts").get_caller_identity()
    assert identity["Account"] == ACCOUNT
    iam = served.client("iam")
    role = iam.create_role(
        RoleName="r", AssumeRolePolicyDocument="{}", Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}]
    )["Role"]
    assert role["RoleName"] == "r"
    assert role["Tags"] == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}]
    assert role["CreateDate"] == MOMENT.replace(microsecond=0)
    iam.delete_role(RoleName="r")


def test_the_json_protocol(served: Served) -> None:
    ssm = served.client("ssm")
    parameter = ssm.get_parameter(Name="/aws/service/x", WithDecryption=True)["Parameter"]
    assert served.requests[-1][1] == {"Name": "/aws/service/x", "WithDecryption": True}
    assert parameter["Version"] == 3
    assert parameter["LastModifiedDate"] == MOMENT
    with pytest.raises(ssm.exceptions.ParameterNotFound, match="There is no parameter none"):
        ssm.get_parameter(Name="none")


def test_the_rest_json_protocol(served: Served) -> None:
    ebs = served.client("ebs")
    answer = ebs.start_snapshot(VolumeSize=8, Tags=[{"Key": "a", "Value": "b"}])
    assert answer["SnapshotId"] == "snap-1"
    assert answer["StartTime"] == MOMENT
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
    ebs.put_snapshot_block(
        SnapshotId="snap-1", BlockIndex=3, BlockData=b"x" * 1000, DataLength=1000, Checksum="c" * 44,
        ChecksumAlgorithm="SHA256",
    )  # fmt: skip
    request = served.requests[-1][1]
    assert request["BlockData"] == b"x" * 1000
    assert (request["SnapshotId"], request["BlockIndex"], request["DataLength"]) == ("snap-1", 3, 1000)
    block = ebs.get_snapshot_block(SnapshotId="snap-1", BlockIndex=3, BlockToken="t")
    assert block["BlockData"].read() == b"b" * 1000
    assert block["DataLength"] == 1000


@pytest.mark.parametrize("piece", [b"a: b\r\n" * 2000, b"a" * 16384])
def test_a_head_without_an_end_is_refused(served: Served, piece: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port), 60) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        with pytest.raises(ConnectionError):
            connection.sendall(piece * 2000)


def test_many_requests_at_once_are_no_long_head(served: Served) -> None:
    one = b"GET /here?list-type=2 HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1000 + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), 60) as connection:
        connection.sendall(one * 199 + one.replace(b"\r\nX", b"\r\nConnection: close\r\nX"))
        with connection.makefile("rb") as answers:
            assert answers.read().count(b"HTTP/1.1 ") == 200


def test_what_comes_to_the_address_of_instances_is_known_for_theirs(tmp_path: Path) -> None:
    with serving(tmp_path, lambda options: options.update(any_key=True), INSIDE) as inside:
        with pytest.raises(ClientError, match="Instances need keys"):
            inside.client("sts", "test", "test").get_caller_identity()
        assert inside.client("sts").get_caller_identity()["Account"] == ACCOUNT


def test_a_body_without_an_end_is_let_go(served: Served) -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with socket.create_connection(("127.0.0.1", served.port), 60) as connection:
        connection.sendall(head + b"Content-Length: 1000000000\r\n\r\n")
        with pytest.raises(ConnectionError):
            connection.sendall(bytes(1_000_000_000))


def test_bodies_of_many_clients_are_not_held_without_a_bound(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "READ_AT_ONCE", 100_000)
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with socket.create_connection(("127.0.0.1", served.port), 60) as connection:
        connection.sendall(head + b"Content-Length: 200000\r\n\r\n" + b"x" * 150_000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 503 ")
    assert served.client("sts").get_caller_identity()["Account"] == ACCOUNT
