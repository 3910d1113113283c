"""celaje's own command as a client of the API, like any other: what it prints, and what it does of what it was told."""

from __future__ import annotations

import base64
import json
import shlex
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from celaje.cli import command
from celaje.cloud.state.instances import Instance
from tests.cloud.belongings import instance_with
from tests.cloud.served import REGION, Owner, User

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(owner: Owner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Types words after `celaje` as `owner`, or as somebody else: exit status, what it prints, what it complains of."""
    monkeypatch.setenv("CELAJE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{owner.cloud.port}")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)

    def type_words(*words: str, by: Owner = owner) -> tuple[int, str, str]:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", by.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", by.secret)
        status = command.main(list(words))
        said = capsys.readouterr()
        return status, said.out, said.err

    return type_words


def test_a_name_is_told_so_that_a_shell_takes_it(typed: Typed, image: str) -> None:
    name = "a b; $(touch it)"
    status, said, _ = typed("launch", image, "--name", name, "--no-wait", "--key", _key(typed))
    assert (status, shlex.split(said.splitlines()[-1])) == (0, ["celaje", "ssh", name])
    status, said, _ = typed("launch", image, "--name", name, "--no-wait", "--key", "mine")
    assert shlex.split(said.splitlines()[-1])[-1].startswith("i-")  # the name is of two now


@pytest.mark.parametrize("content", [b"#!/bin/sh\necho here\n", b"\x1f\x8b\x08\x00\xff"], ids=["script", "compressed"])
def test_the_guest_gets_the_user_data_of_the_file(
    typed: Typed, owner: Owner, image: str, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "data").write_bytes(content)
    words = ("--no-wait", "--json", "--key", _key(typed), "--user-data", str(tmp_path / "data"))
    status, said, _ = typed("launch", image, *words)
    (one,) = json.loads(said)
    asked = {"InstanceId": one["InstanceId"], "Attribute": "userData"}
    told = owner.client("ec2").describe_instance_attribute(**asked)["UserData"]["Value"]
    assert (status, base64.b64decode(told)) == (0, content)


def test_a_launch_is_what_its_options_say(typed: Typed, owner: Owner, image: str, tmp_path: Path) -> None:
    ec2, iam = owner.client("ec2"), owner.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.create_role(RoleName="role", AssumeRolePolicyDocument=document)
    iam.create_instance_profile(InstanceProfileName="profile")
    iam.add_role_to_instance_profile(InstanceProfileName="profile", RoleName="role")
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (tmp_path / "id.pub").write_bytes(line)
    words = "--no-wait --json --count 2 --open tcp:80 --type t3.small --name web --role profile"
    disks = ("--root-size", "4G", "--volume", "2G", "--volume", "3G")
    more = ("--zone", f"{REGION}b", "--open", "udp:6000-6010", "--ssh-key", str(tmp_path / "id.pub"))
    status, said, _ = typed("launch", image, *words.split(), *disks, *more)
    assert status == 0
    made = json.loads(said)
    assert len(made) == 2
    for one in made:
        assert (one["ImageId"], one["InstanceType"], one["KeyName"]) == (image, "t3.small", "celaje-id")
        assert one["Placement"]["AvailabilityZone"] == f"{REGION}b"
        assert one["IamInstanceProfile"]["Arn"].endswith(":instance-profile/profile")
        assert one["Tags"] == [{"Key": "Name", "Value": "web"}]
        attached = [{"Name": "attachment.instance-id", "Values": [one["InstanceId"]]}]
        volumes = ec2.describe_volumes(Filters=attached)["Volumes"]
        assert sorted((each["Attachments"][0]["Device"], each["Size"]) for each in volumes) == [
            ("/dev/sda1", 4),
            ("/dev/sdf", 2),
            ("/dev/sdg", 3),
        ]
    [group] = made[0]["SecurityGroups"]
    [told] = ec2.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
    opened = sorted((rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in told["IpPermissions"])
    assert opened == [("icmp", -1, -1), ("tcp", 22, 22), ("tcp", 80, 80), ("udp", 6000, 6010)]
    status, said, _ = typed("launch", image, "--no-wait", "--json", "--key", "celaje-id", "--group", group["GroupId"])
    [other] = json.loads(said)
    assert (other["KeyName"], other["SecurityGroups"]) == ("celaje-id", [group])
    status, _, complaint = typed("terminate", "web", "--no-wait")
    assert (status, "'web' is the name of 2 instances; choose by identifier: i-" in complaint) == (2, True)


def _key(typed: Typed) -> str:
    """A key pair, which costs less than the one that `launch` makes."""
    from celaje.cli.cloud_client import ec2

    assert typed("account", "whoami")[0] == 0
    return str(ec2()("create_key_pair", KeyName="mine", KeyType="ed25519")["KeyName"])


def test_an_instance_is_rebooted_by_its_name_and_nothing_is_done_where_one_is_of_nothing(
    typed: Typed, owner: Owner
) -> None:
    ec2 = owner.client("ec2")
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    identifier = instance_with(owner.cloud, interface)
    ec2.create_tags(Resources=[identifier], Tags=[{"Key": "Name", "Value": "web"}])

    def is_asked() -> bool:
        with owner.cloud.database.read() as session:
            return session.get_one(Instance, identifier).reboot_asked is not None

    assert typed("reboot", "web", "none")[0] == 2
    assert not is_asked()
    assert typed("reboot", "web") == (0, "web: the cloud has accepted it\n", "")
    assert is_asked()
    status, _, complaint = typed("start", "--no-wait", "web", "none")
    assert (status, complaint) == (2, f"celaje: there is no instance 'none'; there are: web ({identifier})\n")
    assert typed("stop", "--no-wait", identifier) == (0, f"{identifier}: the cloud has accepted it\n", "")
    with owner.cloud.database.read() as session:
        assert session.get_one(Instance, identifier).wanted == "stopped"


def test_nothing_is_deleted_where_one_of_the_names_is_of_nothing(typed: Typed, owner: Owner) -> None:
    ec2 = owner.client("ec2")
    volume = ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=1)["VolumeId"]
    before = ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    status, said, complaint = typed("volume", "rm", volume, "none")
    assert (status, said) == (2, "")
    assert complaint == f"celaje: there is no volume 'none'; there are: {volume}\n"
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"] == before


def test_a_refusal_ends_with_what_to_type_next(typed: Typed, owner: Owner, image: str) -> None:
    reader = User(owner, "reader", "ec2:Describe*")
    taken = f"taken-{owner.account}"
    owner.cloud.root.client("s3").create_bucket(Bucket=taken)
    for words, by, code, hint in (
        (("launch", image, "--no-wait", "--zone", "here"), owner, "InvalidParameterValue", "celaje launch --help"),
        (("volume", "create", "--size", "1G", "--type", "gp9"), owner, "UnknownVolumeType", "volume create --help"),
        (("volume", "create", "--size", "1G"), reader, "UnauthorizedOperation", "celaje account whoami"),
        (("bucket", "ls"), reader, "AccessDenied", "celaje account whoami"),
        (("bucket", "create", taken), owner, "BucketAlreadyExists", "celaje bucket ls"),
        (("bucket", "create", "No"), owner, "InvalidBucketName", "celaje bucket create my-bucket"),
        (("bucket", "get", f"none-{taken}/key"), owner, "NoSuchBucket", "celaje bucket ls"),
        (("account", "create", "other"), owner, "AccessDeniedException", "celaje account whoami"),
    ):
        status, said, complaint = typed(*words, by=by)
        assert (status, said) == (2, ""), words
        assert f"({code}); " in complaint, words
        assert complaint.endswith(f"{hint}\n"), complaint
        assert complaint.count("\n") == 1, complaint


def test_what_is_typed_is_completed_by_what_there_is(typed: Typed, owner: Owner, image: str) -> None:
    ec2, s3, iam = (owner.client(service) for service in ("ec2", "s3", "iam"))
    volume = ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=1)["VolumeId"]
    ec2.create_key_pair(KeyName="mine", KeyType="ed25519")
    iam.create_instance_profile(InstanceProfileName="profile")
    s3.create_bucket(Bucket=(bucket := f"bucket-{owner.account}"))
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web"}]}]
    ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=tags)

    def completed(line: str) -> list[str]:
        return typed("completion", "--words", *line.split(" "))[1].split()

    assert completed("ter") == ["terminate"]
    for line, found in {
        "ssh w": ["web"],
        "stop web ": ["web"],
        "ssh web ": [],
        f"volume attach {volume} ": ["web"],
        f"volume attach {volume} web ": [],
        "bucket ls b": [bucket],
        "bucket put file ": [bucket],
        "launch --key ": ["mine"],
        "launch --key mine --role ": ["profile"],
        "launch --zone ": [f"{REGION}a", f"{REGION}b"],
        "launch --type t3.n": ["t3.nano"],
        "image rm ": [],
    }.items():
        assert completed(line) == found, line
    assert volume in completed("volume attach vol")
    assert volume in completed("volume rm web ")
    assert completed("launch ima") == [one for one in completed("launch ") if one.startswith("ima")] != []
    root = owner.cloud.root
    assert "root" in typed("completion", "--words", "account", "rm", "", by=root)[1].split()
    assert "root" in typed("completion", "--words", "env", "--account", "r", by=root)[1].split()


def test_a_cloud_that_does_not_answer_is_told_with_what_to_look_at(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        for words in (("ls",), ("bucket", "ls"), ("account", "whoami")):
            status, said, complaint = typed(*words)
            assert (status, said) == (2, "")
            assert complaint.startswith("celaje: the cloud does not answer (")
            assert complaint.endswith("; look at it: celaje status\n")
        assert typed("completion", "--words", "ssh", "") == (0, "\n", "")


def test_a_file_goes_into_a_bucket_and_comes_back(typed: Typed, owner: Owner, tmp_path: Path) -> None:
    bucket = f"bucket-{owner.account}"
    source, target = tmp_path / "a file", tmp_path / "again"
    source.write_bytes(b"content\n" * 1000)
    assert typed("bucket", "create", bucket)[0] == 0
    assert typed("bucket", "put", str(source), f"{bucket}/shelf/")[1] == f"{source} is {bucket}/shelf/a file\n"
    status, said, _ = typed("bucket", "ls", f"{bucket}/shelf/", "--json")
    assert (status, [(one["Key"], one["Size"]) for one in json.loads(said)]) == (0, [("shelf/a file", 8000)])
    assert typed("bucket", "get", f"{bucket}/shelf/a file", str(target))[0] == 0
    assert target.read_bytes() == source.read_bytes()
    status, _, complaint = typed("bucket", "rm", bucket)
    assert (status, "BucketNotEmpty" in complaint) == (2, True)
    assert typed("bucket", "rm", f"{bucket}/shelf/a file")[0] == 0
    assert typed("bucket", "rm", bucket)[0] == 0
    status, _, complaint = typed("bucket", "ls", bucket)
    assert (status, "NoSuchBucket" in complaint) == (2, True)


def test_an_object_goes_into_a_file_or_a_directory_and_nowhere_else(
    typed: Typed, owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, s3 = f"bucket-{owner.account}", owner.client("s3")
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="shelf/book", Body=b"content")
    s3.put_object(Bucket=bucket, Key="shelf/", Body=b"")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    for words in ((), ("here",), ("here/other",)):
        assert typed("bucket", "get", f"{bucket}/shelf/book", *words)[0] == 0
    assert typed("bucket", "get", f"s3://{bucket}/shelf/book", "-")[1] == "content"
    files = ("book", "here/book", "here/other")
    assert [(tmp_path / name).read_bytes() for name in files] == [b"content"] * 3
    for words, complaint in (
        ((bucket,), "goes into a file: celaje bucket get BUCKET/KEY FILE"),
        ((f"{bucket}/shelf/",), "goes into a file: celaje bucket get BUCKET/KEY FILE"),
        ((f"{bucket}/shelf/book", "none/file"), "cannot write none/file: No such file or directory"),
        ((f"{bucket}/shelf/book", "book/file"), "cannot write book/file: Not a directory"),
    ):
        status, said, complained = typed("bucket", "get", *words)
        assert (status, said, complaint in complained) == (2, "", True), complained
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["book", "book", "other"]


def test_a_bucket_goes_with_all_versions_of_what_is_in_it(typed: Typed, owner: Owner) -> None:
    bucket, s3 = f"bucket-{owner.account}", owner.client("s3")
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"1", b"2"):
        s3.put_object(Bucket=bucket, Key="shelf/book", Body=body)
    assert typed("bucket", "rm", f"{bucket}/shelf", "--recursive")[0] == 0
    assert len(s3.list_object_versions(Bucket=bucket)["Versions"]) == 2  # a marker hides them
    assert typed("bucket", "rm", bucket)[0] == 2
    assert typed("bucket", "rm", bucket, "--recursive")[0] == 0
    assert [one["Name"] for one in s3.list_buckets()["Buckets"]] == []


def test_an_upload_that_was_never_finished_is_listed_and_aborted(typed: Typed, owner: Owner) -> None:
    bucket, s3 = f"bucket-{owner.account}", owner.client("s3")
    s3.create_bucket(Bucket=bucket)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="big", UploadId=upload, PartNumber=1, Body=b"12345")
    status, said, _ = typed("bucket", "uploads", "--json")
    assert (status, [(one["UploadId"], one["Size"]) for one in json.loads(said)]) == (0, [(upload, 5)])
    assert "1 uploads are aborted" in typed("bucket", "uploads", bucket, "--abort")[1]
    assert typed("bucket", "uploads")[1] == "No upload is unfinished.\n"
