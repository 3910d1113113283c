"""Who may do what with buckets and objects: users, other accounts, nobody; policies, lists, the block."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from celaje.cloud.authority.identities import canonical_user
from celaje.cloud.s3.grants import ALL_USERS
from celaje.cloud.s3.public_policies import is_public
from tests.cloud.authority.test_permissions import Staff, allow, deny, document
from tests.cloud.s3.conftest import name_the_source
from tests.cloud.served import Owner, ServedCloud, refusal

_NUMBERS = itertools.count()


@pytest.fixture
def s3(owner: Owner) -> Any:
    return owner.client("s3")


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"permissions-{next(_NUMBERS)}"
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="book", Body=b"text", Tagging="team=red")
    return name


@pytest.fixture
def ada(owner: Owner) -> Staff:
    return Staff(owner)


@pytest.fixture
def stranger(served_cloud: ServedCloud) -> Staff:
    """A user of another account, who may do everything there."""
    other = Staff(served_cloud.owner())
    other.may(allow("*"))
    return other


@pytest.fixture
def nobody(served_cloud: ServedCloud) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{served_cloud.port}",
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, retries={"max_attempts": 1}),
    )


def opened(s3: Any, bucket: str, **changed: bool) -> None:
    """Take the public access block away, but for what is said."""
    switches = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    block = dict.fromkeys(switches, False) | changed
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)


def granting(
    bucket: str, principal: Any, action: Any = "s3:GetObject", path: str = "/*", **more: Any
) -> dict[str, Any]:
    return allow(action, f"arn:aws:s3:::{bucket}{path}", Principal=principal, **more)


def denied(action: Callable[..., Any], **request: Any) -> str:
    code, message = refusal(action, **request)
    assert code in ("AccessDenied", "403"), code
    return message


def test_a_user_has_of_its_accounts_buckets_what_its_policies_give(owner, s3, bucket, ada):
    mine = ada.client("s3")
    assert denied(mine.get_object, Bucket=bucket, Key="book") == (
        f"User: {ada.arn} is not authorized to perform: s3:GetObject on resource: "
        f'"arn:aws:s3:::{bucket}/book" because no identity-based policy allows the s3:GetObject action'
    )
    denied(mine.list_buckets)
    denied(mine.create_bucket, Bucket=f"{bucket}-x")
    denied(mine.list_objects_v2, Bucket=bucket)
    ada.may(allow("s3:GetObject", f"arn:aws:s3:::{bucket}/b*"))
    assert mine.get_object(Bucket=bucket, Key="book")["Body"].read() == b"text"
    mine.head_object(Bucket=bucket, Key="book")
    denied(mine.get_object, Bucket=bucket, Key="b-missing")  # who may not list is not told
    ada.may(allow("s3:GetObject", f"arn:aws:s3:::{bucket}/b*"), allow("s3:ListBucket", f"arn:aws:s3:::{bucket}"))
    assert refusal(mine.get_object, Bucket=bucket, Key="b-missing")[0] == "NoSuchKey"
    denied(mine.get_object, Bucket=bucket, Key="other")
    denied(mine.put_object, Bucket=bucket, Key="book", Body=b"")
    denied(mine.delete_object, Bucket=bucket, Key="book")
    assert [found["Key"] for found in mine.list_objects_v2(Bucket=bucket)["Contents"]] == ["book"]
    assert mine.head_bucket(Bucket=bucket)
    ada.iam.delete_user_policy(UserName="ada", PolicyName="own")
    ada.iam.attach_user_policy(UserName="ada", PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    assert mine.list_buckets()["Buckets"]
    denied(mine.put_object, Bucket=bucket, Key="book", Body=b"")


def test_every_operation_is_asked_for_by_its_own_name(owner, s3, bucket, ada):
    mine = ada.client("s3")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="up")["UploadId"]
    asked: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
        ("s3:PutObject", mine.put_object, {"Key": "new", "Body": b""}),
        ("s3:PutObject", mine.upload_part, {"Key": "up", "UploadId": upload, "PartNumber": 1, "Body": b"x"}),
        ("s3:ListMultipartUploadParts", mine.list_parts, {"Key": "up", "UploadId": upload}),
        ("s3:AbortMultipartUpload", mine.abort_multipart_upload, {"Key": "up", "UploadId": upload}),
        ("s3:ListBucketVersions", mine.list_object_versions, {}),
        ("s3:ListBucketMultipartUploads", mine.list_multipart_uploads, {}),
        ("s3:GetObjectTagging", mine.get_object_tagging, {"Key": "book"}),
        ("s3:GetBucketCORS", mine.delete_bucket_cors, {}),
        ("s3:GetBucketPublicAccessBlock", mine.get_public_access_block, {}),
        ("s3:GetEncryptionConfiguration", mine.get_bucket_encryption, {}),
        ("s3:GetBucketVersioning", mine.get_bucket_versioning, {}),
        ("s3:DeleteObject", mine.delete_object, {"Key": "new"}),
    ]
    for action, operation, request in asked:
        needed = "s3:PutBucketCORS" if operation == mine.delete_bucket_cors else action
        ada.may(allow("s3:*"), deny(needed))
        assert "with an explicit deny in an identity-based policy" in denied(operation, Bucket=bucket, **request)
        ada.may(allow(needed))
        if action == "s3:GetEncryptionConfiguration":
            assert refusal(operation, Bucket=bucket, **request)[0] == "ServerSideEncryptionConfigurationNotFoundError"
        else:
            operation(Bucket=bucket, **request)


def test_conditions_look_at_prefixes_tags_and_more(owner, s3, bucket, ada):
    mine = ada.client("s3")
    ada.may(allow("s3:ListBucket", Condition={"StringLike": {"s3:prefix": ["home/${aws:username}/*"]}}))
    mine.list_objects_v2(Bucket=bucket, Prefix="home/ada/x")
    denied(mine.list_objects_v2, Bucket=bucket, Prefix="home/bob/")
    denied(mine.list_objects_v2, Bucket=bucket)
    ada.may(allow("s3:ListBucket", Condition={"NumericLessThanEquals": {"s3:max-keys": "10"}}))
    mine.list_objects(Bucket=bucket, MaxKeys=10)
    denied(mine.list_objects, Bucket=bucket, MaxKeys=11)
    ada.may(allow(["s3:GetObject", "s3:ListBucket"], Condition={"StringEquals": {"s3:ExistingObjectTag/team": "red"}}))
    mine.get_object(Bucket=bucket, Key="book")
    s3.put_object_tagging(Bucket=bucket, Key="book", Tagging={"TagSet": [{"Key": "team", "Value": "blue"}]})
    denied(mine.get_object, Bucket=bucket, Key="book")
    red = {"StringEquals": {"s3:RequestObjectTag/team": "red"}}
    ada.may(allow(["s3:PutObject", "s3:PutObjectTagging"], Condition=red))
    mine.put_object(Bucket=bucket, Key="red", Body=b"", Tagging="team=red")
    denied(mine.put_object, Bucket=bucket, Key="blue", Body=b"", Tagging="team=blue")
    ada.may(allow("s3:PutObject"))
    denied(mine.put_object, Bucket=bucket, Key="red", Body=b"", Tagging="team=red")


def test_copies_need_both_ends_and_deletions_each_object(owner, s3, bucket, ada):
    mine = ada.client("s3")
    ada.may(allow("s3:PutObject"))
    denied(mine.copy_object, Bucket=bucket, Key="copy", CopySource=f"{bucket}/book")
    ada.may(allow(["s3:PutObject", "s3:GetObject"]))
    mine.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/book", TaggingDirective="REPLACE")
    secret = {"StringLike": {"s3:x-amz-copy-source": f"{bucket}/book"}}
    ada.may(allow(["s3:PutObject", "s3:GetObject"]), deny("s3:PutObject", Condition=secret))
    for source in (f"{bucket}/book", f"/{bucket}/book", f"{bucket}%2Fbook", f"{bucket}/b%6Fok", f"%2F{bucket}/book"):
        named = ada.client("s3")
        name_the_source(named, source)
        denied(named.copy_object, Bucket=bucket, Key="copy", CopySource="a/b", TaggingDirective="REPLACE")
    ada.may(allow("s3:DeleteObject", f"arn:aws:s3:::{bucket}/copy"))
    answer = mine.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "book"}, {"Key": "copy"}]})
    assert [(each["Key"], each["Code"]) for each in answer["Errors"]] == [("book", "AccessDenied")]
    assert [each["Key"] for each in answer["Deleted"]] == ["copy"]
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=bucket, Key="book", Body=b"2")["VersionId"]
    ada.may(allow(["s3:GetObject", "s3:DeleteObject"]))
    mine.get_object(Bucket=bucket, Key="book")
    denied(mine.get_object, Bucket=bucket, Key="book", VersionId=version)
    denied(mine.delete_object, Bucket=bucket, Key="book", VersionId=version)
    ada.may(allow(["s3:GetObjectVersion", "s3:DeleteObjectVersion"]))
    mine.get_object(Bucket=bucket, Key="book", VersionId=version)
    mine.delete_object(Bucket=bucket, Key="book", VersionId=version)


def test_a_bucket_policy_gives_in_its_account_and_beyond(owner, s3, bucket, ada, stranger):
    theirs, mine = stranger.client("s3"), ada.client("s3")
    assert denied(theirs.get_object, Bucket=bucket, Key="book") == "Access Denied"
    s3.put_bucket_policy(Bucket=bucket, Policy=document(granting(bucket, {"AWS": [stranger.arn, ada.arn]})))
    assert theirs.get_object(Bucket=bucket, Key="book")["Body"].read() == b"text"
    assert mine.get_object(Bucket=bucket, Key="book")["Body"].read() == b"text"
    denied(theirs.put_object, Bucket=bucket, Key="book", Body=b"")
    stranger.may(allow("*"), deny("s3:GetObject"))
    denied(theirs.get_object, Bucket=bucket, Key="book")
    stranger.may(allow("ec2:*"))
    denied(theirs.get_object, Bucket=bucket, Key="book")
    everything = [
        granting(bucket, {"AWS": stranger.owner.account}, "s3:*", ""),
        granting(bucket, {"AWS": stranger.owner.account}, "s3:*"),
    ]
    s3.put_bucket_policy(Bucket=bucket, Policy=document(*everything))
    stranger.may(allow("s3:*"))
    theirs.put_object(Bucket=bucket, Key="from-elsewhere", Body=b"x")
    assert s3.get_object(Bucket=bucket, Key="from-elsewhere")["Body"].read() == b"x"  # it is the owner's all the same
    assert theirs.list_objects_v2(Bucket=bucket)["KeyCount"] == 2
    assert json.loads(theirs.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"] == everything
    s3.delete_bucket_policy(Bucket=bucket)
    denied(theirs.list_objects_v2, Bucket=bucket)
    assert refusal(s3.get_bucket_policy, Bucket=bucket)[0] == "NoSuchBucketPolicy"


def test_a_denial_in_a_bucket_policy_holds_the_root_too_but_it_can_be_mended(s3, bucket):
    nothing = deny("s3:*", f"arn:aws:s3:::{bucket}/*", Principal="*")
    s3.put_bucket_policy(Bucket=bucket, Policy=document(nothing, deny("s3:*", f"arn:aws:s3:::{bucket}", Principal="*")))
    assert "with an explicit deny in a resource-based policy" in denied(s3.get_object, Bucket=bucket, Key="book")
    denied(s3.list_objects_v2, Bucket=bucket)
    s3.delete_bucket_policy(Bucket=bucket)
    s3.get_object(Bucket=bucket, Key="book")


@pytest.mark.parametrize(
    "policy",
    [
        "{",
        "x",
        "{}",
        document(allow("s3:GetObject", "arn:aws:s3:::elsewhere/*", Principal="*")),
        document(allow("ec2:RunInstances", "*", Principal="*")),
        document(allow("s3:GetObject", "*")),
    ],
)
def test_what_is_no_policy_of_the_bucket_is_refused(s3, bucket, policy):
    assert refusal(s3.put_bucket_policy, Bucket=bucket, Policy=policy)[0] == "MalformedPolicy"
    assert refusal(s3.get_bucket_policy, Bucket=bucket)[0] == "NoSuchBucketPolicy"


def test_nobody_reads_what_is_not_public(nobody, s3, bucket):
    denied(nobody.get_object, Bucket=bucket, Key="book")
    denied(nobody.get_object, Bucket=bucket, Key="missing")
    denied(nobody.list_objects_v2, Bucket=bucket)
    denied(nobody.put_object, Bucket=bucket, Key="book", Body=b"")
    denied(nobody.list_buckets)
    denied(nobody.create_bucket, Bucket=f"{bucket}-x")
    assert refusal(nobody.get_object, Bucket="no-such-bucket-here", Key="x")[0] == "NoSuchBucket"


def test_a_bucket_is_made_public_only_without_the_block(nobody, s3, bucket, stranger):
    public = document(granting(bucket, "*"))
    assert "BlockPublicPolicy" in denied(s3.put_bucket_policy, Bucket=bucket, Policy=public)
    opened(s3, bucket)
    s3.put_bucket_policy(Bucket=bucket, Policy=public)
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is True
    assert nobody.get_object(Bucket=bucket, Key="book")["Body"].read() == b"text"
    assert stranger.client("s3").get_object(Bucket=bucket, Key="book")["Body"].read() == b"text"
    denied(nobody.get_object, Bucket=bucket, Key="missing")
    denied(nobody.put_object, Bucket=bucket, Key="book", Body=b"")
    opened(s3, bucket, RestrictPublicBuckets=True)
    denied(nobody.get_object, Bucket=bucket, Key="book")
    denied(stranger.client("s3").get_object, Bucket=bucket, Key="book")
    s3.get_object(Bucket=bucket, Key="book")
    s3.delete_public_access_block(Bucket=bucket)
    assert nobody.get_object(Bucket=bucket, Key="book")["Body"].read() == b"text"
    assert refusal(s3.get_public_access_block, Bucket=bucket)[0] == "NoSuchPublicAccessBlockConfiguration"


@pytest.mark.parametrize(
    ("statement", "public"),
    [
        (granting("b", "*"), True),
        (granting("b", {"AWS": "*"}), True),
        (granting("b", {"AWS": "111111111111"}), False),
        (deny("s3:*", "*", Principal="*"), False),
        (granting("b", "*", Condition={"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}), False),
        (granting("b", "*", Condition={"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}), True),
        (granting("b", "*", Condition={"StringEquals": {"aws:PrincipalAccount": "111111111111"}}), False),
        (granting("b", "*", Condition={"StringLike": {"aws:PrincipalAccount": "1*"}}), True),
        (granting("b", "*", Condition={"StringNotEquals": {"aws:PrincipalAccount": "111111111111"}}), True),
        (granting("b", "*", Condition={"StringLike": {"aws:Referer": "https://example.com/"}}), True),
    ],
)
def test_a_policy_is_public_as_aws_means_it(statement, public):
    assert is_public(document(statement)) is public


@pytest.mark.parametrize("principal", [{"CanonicalUser": "*"}, {"AWS": ["*"]}, {"AWS": "*", "Service": "x"}])
def test_no_way_of_saying_everybody_is_let_through_the_block(nobody, s3, bucket, stranger, principal):
    code, _ = refusal(s3.put_bucket_policy, Bucket=bucket, Policy=document(granting(bucket, principal)))
    assert code in ("AccessDenied", "MalformedPolicy")
    denied(nobody.get_object, Bucket=bucket, Key="book")
    denied(stranger.client("s3").get_object, Bucket=bucket, Key="book")


def test_lists_are_off_where_the_owner_has_all_objects(s3, bucket):
    assert s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"] == [
        {"ObjectOwnership": "BucketOwnerEnforced"}
    ]
    for action, request in (
        (s3.put_bucket_acl, {"ACL": "public-read"}),
        (s3.put_object_acl, {"Key": "book", "ACL": "public-read"}),
        (s3.put_object, {"Key": "book", "Body": b"", "ACL": "public-read"}),
    ):
        assert refusal(action, Bucket=bucket, **request)[0] == "AccessControlListNotSupported"
    s3.put_object(Bucket=bucket, Key="x", Body=b"", ACL="bucket-owner-full-control")
    assert refusal(s3.create_bucket, Bucket=f"{bucket}-x", ACL="public-read")[0] == (
        "InvalidBucketAclWithObjectOwnership"
    )
    [grant] = s3.get_bucket_acl(Bucket=bucket)["Grants"]
    assert grant["Permission"] == "FULL_CONTROL"


def written(s3: Any, bucket: str, ownership: str = "ObjectWriter") -> None:
    """Lists count, and nothing is blocked."""
    opened(s3, bucket)
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": ownership}]})


def test_canned_lists_give_what_their_names_say(nobody, owner, s3, bucket, stranger):
    theirs = stranger.client("s3")
    written(s3, bucket)
    expected = {
        "private": (False, False),
        "public-read": (True, True),
        "authenticated-read": (False, True),
        "bucket-owner-full-control": (False, False),
    }
    for name, (by_nobody, by_stranger) in expected.items():
        s3.put_object_acl(Bucket=bucket, Key="book", ACL=name)
        for client, may in ((nobody, by_nobody), (theirs, by_stranger)):
            if may:
                assert client.get_object(Bucket=bucket, Key="book")["Body"].read() == b"text"
            else:
                denied(client.get_object, Bucket=bucket, Key="book")
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    assert nobody.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    nobody.put_object(Bucket=bucket, Key="dropped", Body=b"x")
    assert s3.get_object(Bucket=bucket, Key="dropped")["Body"].read() == b"x"
    nobody.delete_object(Bucket=bucket, Key="dropped")
    nobody.put_object(Bucket=bucket, Key="shown", Body=b"y", ACL="public-read", Tagging="a=b")
    assert nobody.get_object(Bucket=bucket, Key="shown")["Body"].read() == b"y"
    denied(nobody.put_object_acl, Bucket=bucket, Key="book", ACL="public-read")
    denied(nobody.put_object_tagging, Bucket=bucket, Key="book", Tagging={"TagSet": []})
    nobody.delete_object(Bucket=bucket, Key="shown")
    denied(nobody.get_bucket_acl, Bucket=bucket)
    grants = s3.get_bucket_acl(Bucket=bucket)["Grants"]
    assert {(each["Grantee"].get("URI"), each["Permission"]) for each in grants} == {
        (None, "FULL_CONTROL"),
        (ALL_USERS, "READ"),
        (ALL_USERS, "WRITE"),
    }
    opened(s3, bucket, IgnorePublicAcls=True)
    denied(nobody.list_objects_v2, Bucket=bucket)
    opened(s3, bucket, BlockPublicAcls=True)
    denied(s3.put_bucket_acl, Bucket=bucket, ACL="public-read")
    denied(s3.put_object, Bucket=bucket, Key="y", Body=b"", ACL="public-read")
    assert nobody.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    enforced = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert refusal(s3.put_bucket_ownership_controls, Bucket=bucket, OwnershipControls=enforced)[0] == (
        "InvalidBucketAclWithObjectOwnership"
    )
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=enforced)
    s3.delete_bucket_ownership_controls(Bucket=bucket)
    assert refusal(s3.get_bucket_ownership_controls, Bucket=bucket)[0] == "OwnershipControlsNotFoundError"


def test_grants_name_an_account_in_headers_or_whole(owner, s3, bucket, stranger):
    theirs = stranger.client("s3")
    written(s3, bucket)
    them = canonical_user(stranger.owner.account)
    s3.put_object_acl(Bucket=bucket, Key="book", GrantRead=f'id="{them}"')
    assert theirs.get_object(Bucket=bucket, Key="book")["Body"].read() == b"text"
    denied(theirs.get_object_acl, Bucket=bucket, Key="book")
    mine = s3.get_bucket_acl(Bucket=bucket)["Owner"]
    grants = [
        {"Grantee": {"Type": "CanonicalUser", "ID": them}, "Permission": permission}
        for permission in ("READ", "READ_ACP", "WRITE")
    ]
    s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy={"Owner": mine, "Grants": grants})
    assert theirs.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    assert len(theirs.get_bucket_acl(Bucket=bucket)["Grants"]) == 3
    stranger.may(allow("*"), deny("s3:ListBucket"))
    denied(theirs.list_objects_v2, Bucket=bucket)
    unknown = {"GrantRead": 'id="' + "0" * 64 + '"'}
    assert refusal(s3.put_bucket_acl, Bucket=bucket, **unknown)[0] == "InvalidArgument"
    assert refusal(s3.put_bucket_acl, Bucket=bucket, GrantRead='emailAddress="a@b.example"')[0] == (
        "UnresolvableGrantByEmailAddress"
    )
    assert refusal(s3.put_bucket_acl, Bucket=bucket, GrantRead="nonsense")[0] == "InvalidArgument"


@pytest.mark.parametrize(("ownership", "acl", "whose"), [
    ("ObjectWriter", {}, "writer"),
    ("ObjectWriter", {"ACL": "bucket-owner-full-control"}, "both"),
    ("BucketOwnerPreferred", {"ACL": "bucket-owner-full-control"}, "owner"),
    ("BucketOwnerPreferred", {}, "writer"),
    ("BucketOwnerEnforced", {}, "owner"),
])  # fmt: skip
def test_an_object_is_whose_the_ownership_says(owner, s3, bucket, stranger, ownership, acl, whose):
    written(s3, bucket, ownership)
    policy = granting(bucket, {"AWS": stranger.owner.account}, ["s3:PutObject", "s3:PutObjectAcl"])
    s3.put_bucket_policy(Bucket=bucket, Policy=document(policy))
    theirs = stranger.client("s3")
    theirs.put_object(Bucket=bucket, Key="given", Body=b"x", **acl)
    if whose == "writer":
        denied(s3.get_object, Bucket=bucket, Key="given")
    else:
        assert s3.get_object(Bucket=bucket, Key="given")["Body"].read() == b"x"
    if whose == "owner":
        denied(theirs.get_object, Bucket=bucket, Key="given")
    else:
        assert theirs.get_object(Bucket=bucket, Key="given")["Body"].read() == b"x"
    owners = {found["Key"]: found["Owner"]["ID"] for found in s3.list_objects(Bucket=bucket)["Contents"]}
    account = owner.account if whose == "owner" else stranger.owner.account
    assert owners["given"] == canonical_user(account)
    s3.delete_object(Bucket=bucket, Key="given")


def test_a_link_gives_what_its_maker_may(owner, s3, bucket, ada):
    mine = ada.client("s3")
    link = mine.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "book"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(link)
    ada.may(allow("s3:GetObject"))
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"text"


def test_who_may_list_a_bucket_is_told_which_objects_it_does_not_have(s3, bucket, nobody):
    denied(nobody.get_object, Bucket=bucket, Key="none")
    s3.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    )
    opened(s3, bucket)
    denied(nobody.get_object, Bucket=bucket, Key="none")
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert refusal(nobody.get_object, Bucket=bucket, Key="none")[0] == "NoSuchKey"
    s3.put_object(Bucket=bucket, Key="secret", Body=b"")
    denied(nobody.get_object, Bucket=bucket, Key="secret")
    # What a policy says of names to list is held against the name.
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    listing = granting(bucket, "*", "s3:ListBucket", "", Condition={"StringLike": {"s3:prefix": "public/*"}})
    s3.put_bucket_policy(Bucket=bucket, Policy=document(listing))
    assert refusal(nobody.get_object, Bucket=bucket, Key="public/none")[0] == "NoSuchKey"
    denied(nobody.get_object, Bucket=bucket, Key="private/none")


def test_where_lists_do_not_count_an_object_is_put_without_one(s3, bucket):
    s3.put_object(Bucket=bucket, Key="key", Body=b"", ACL="bucket-owner-full-control")
    for acl in ("private", "public-read"):
        assert refusal(s3.put_object, Bucket=bucket, Key="key", ACL=acl)[0] == "AccessControlListNotSupported"
        assert refusal(s3.create_multipart_upload, Bucket=bucket, Key="key", ACL=acl)[0] == (
            "AccessControlListNotSupported"
        )


def test_a_public_policy_that_gives_nothing_away_still_denies(s3, bucket, stranger):
    given = canonical_user(stranger.owner.account)
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]})
    s3.put_object_acl(Bucket=bucket, Key="book", GrantRead=f"id={given}")
    assert stranger.client("s3").get_object(Bucket=bucket, Key="book")["Body"].read() == b"text"
    public = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/x"}
    denied = {**public, "Effect": "Deny", "Resource": f"arn:aws:s3:::{bucket}/*"}
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"RestrictPublicBuckets": True})
    s3.put_bucket_policy(Bucket=bucket, Policy=document(public, denied))
    assert refusal(stranger.client("s3").get_object, Bucket=bucket, Key="book")[0] == "AccessDenied"


def test_policies_against_insecure_transport_do_not_lock_out_who_is_on_this_host(s3, bucket, ada):
    everything = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    insecure = [
        {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": everything, "Condition": condition}
        for condition in (
            {"Bool": {"aws:SecureTransport": "false"}},
            {"NumericLessThan": {"s3:TlsVersion": "1.2"}},
        )
    ]
    s3.put_bucket_policy(Bucket=bucket, Policy=document(*insecure))
    ada.may(allow("s3:GetObject"))
    for client in (s3, ada.client("s3")):
        assert client.get_object(Bucket=bucket, Key="book")["Body"].read() == b"text"
    secure = {**insecure[0], "Condition": {"Bool": {"aws:SecureTransport": "true"}}}
    s3.put_bucket_policy(Bucket=bucket, Policy=document(secure))
    denied(s3.get_object, Bucket=bucket, Key="book")


@pytest.mark.parametrize("key", ["s3:signatureAge", "s3:authType", "ec2:Vpc", "prefix"])
def test_a_condition_that_nothing_is_known_of_is_refused(s3, bucket, key):
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
        "Condition": {"NumericGreaterThan": {key: "1"}},
    }
    refused = refusal(s3.put_bucket_policy, Bucket=bucket, Policy=document(statement))
    assert refused == ("MalformedPolicy", "Policy has an invalid condition key")


def test_tags_are_copied_by_who_may_read_and_set_them(s3, bucket, ada):
    copy = {"Bucket": bucket, "Key": "copy", "CopySource": f"{bucket}/book"}
    objects = f"arn:aws:s3:::{bucket}/*"
    ada.may(allow(["s3:GetObject", "s3:PutObject"], objects))
    client = ada.client("s3")
    assert refusal(client.copy_object, **copy)[0] == "AccessDenied"
    client.copy_object(**copy, TaggingDirective="REPLACE")
    assert s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"] == []
    ada.may(allow(["s3:GetObject", "s3:PutObject", "s3:GetObjectTagging"], objects))
    assert refusal(client.copy_object, **copy)[0] == "AccessDenied"
    ada.may(allow(["s3:GetObject", "s3:PutObject", "s3:GetObjectTagging", "s3:PutObjectTagging"], objects))
    client.copy_object(**copy)
    assert s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"] == [{"Key": "team", "Value": "red"}]


def test_who_began_an_upload_may_list_its_parts_and_abort_it(bucket, s3, owner, stranger, ada):
    """Also in another's bucket that lets them put and nothing else; but for what is denied."""
    give = {"Sid": "", "Effect": "Allow", "Principal": {"AWS": stranger.arn}, "Action": "s3:PutObject"}
    everything = f"arn:aws:s3:::{bucket}/*"
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": [{**give, "Resource": everything}]}))
    theirs = stranger.client("s3")
    names = {"Bucket": bucket, "Key": "up"}
    names["UploadId"] = theirs.create_multipart_upload(**names)["UploadId"]
    theirs.upload_part(**names, PartNumber=1, Body=b"x")
    told = theirs.list_parts(**names)
    assert told["Initiator"] == {"ID": stranger.arn, "DisplayName": stranger.name}
    assert told["Owner"]["ID"] == canonical_user(owner.account)
    assert [each["PartNumber"] for each in told["Parts"]] == [1]
    own = {"Bucket": bucket, "Key": "up"}
    own["UploadId"] = s3.create_multipart_upload(**own)["UploadId"]
    for ask in (theirs.list_parts, theirs.abort_multipart_upload):
        assert refusal(ask, **own)[0] == "AccessDenied"  # that is another's
        assert refusal(ask, **names, ExpectedBucketOwner=stranger.owner.account)[0] == "AccessDenied"
    no = {**give, "Effect": "Deny", "Action": "s3:AbortMultipartUpload", "Resource": everything}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": [{**give, "Resource": everything}, no]}))
    assert refusal(theirs.abort_multipart_upload, **names)[0] == "AccessDenied"
    s3.delete_bucket_policy(Bucket=bucket)
    theirs.abort_multipart_upload(**names)
    assert [each["UploadId"] for each in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [own["UploadId"]]
    assert refusal(ada.client("s3").abort_multipart_upload, **own)[0] == "AccessDenied"


def test_versions_are_named_to_conditions_however_they_are_named_in_a_request(owner, s3, bucket, ada):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    kept, other = (s3.put_object(Bucket=bucket, Key="book", Body=b"kept")["VersionId"] for _ in range(2))
    of_kept = {"StringEquals": {"s3:VersionId": kept}}
    ada.may(allow("s3:*"), deny(["s3:GetObjectVersion", "s3:DeleteObjectVersion"], Condition=of_kept))
    mine = ada.client("s3")
    denied(mine.get_object, Bucket=bucket, Key="book", VersionId=kept)
    for version, code in ((kept, "AccessDenied"), (other, "")):
        source = {"Bucket": bucket, "Key": "book", "VersionId": version}
        if code:
            denied(mine.copy_object, Bucket=bucket, Key="copy", CopySource=source)
        else:
            mine.copy_object(Bucket=bucket, Key="copy", CopySource=source)
        each = {"Key": "book", "VersionId": version}
        answer = mine.delete_objects(Bucket=bucket, Delete={"Objects": [each]})
        assert [error["Code"] for error in answer.get("Errors", [])] == ([code] if code else [])
    assert s3.get_object(Bucket=bucket, Key="book", VersionId=kept)["Body"].read() == b"kept"


def test_copies_do_not_tell_which_objects_there_are_not(s3, bucket, stranger):
    opened(s3, bucket)
    other = stranger.client("s3")
    other.create_bucket(Bucket=f"{bucket}-mine")
    s3.put_bucket_policy(Bucket=bucket, Policy=document(granting(bucket, {"AWS": stranger.arn})))
    copied = {"Bucket": f"{bucket}-mine", "Key": "copy", "TaggingDirective": "REPLACE"}
    other.copy_object(**copied, CopySource=f"{bucket}/book")
    denied(other.get_object, Bucket=bucket, Key="missing")
    denied(other.copy_object, **copied, CopySource=f"{bucket}/missing")
    lists = granting(bucket, {"AWS": stranger.arn}, "s3:ListBucket", "")
    s3.put_bucket_policy(Bucket=bucket, Policy=document(granting(bucket, {"AWS": stranger.arn}), lists))
    assert refusal(other.copy_object, **copied, CopySource=f"{bucket}/missing")[0] == "NoSuchKey"


def test_what_takes_an_objects_place_is_asked_for_itself(s3, bucket, stranger):
    """Between the question and the answer another object may have the key, of which more was not to be had."""
    written(s3, bucket)
    listing = granting(bucket, {"AWS": stranger.arn}, "s3:ListBucket", "")
    tagged = {"StringEquals": {"s3:ExistingObjectTag/open": "yes"}}
    reading = granting(bucket, {"AWS": stranger.arn}, path="/tagged", Condition=tagged)
    s3.put_bucket_policy(Bucket=bucket, Policy=document(listing, reading))
    other = stranger.client("s3")
    over = threading.Event()

    def read(key: str) -> set[str]:
        found = set()
        while not over.is_set():
            try:
                found.add(other.get_object(Bucket=bucket, Key=key)["Body"].read().decode())
            except ClientError as error:
                found.add(error.response["Error"]["Code"])
        return found

    keys = ("tagged", "listed", "gone")
    with concurrent.futures.ThreadPoolExecutor(2 * len(keys)) as pool:
        reading_now = [pool.submit(read, key) for key in keys * 2]
        for _ in range(60):
            s3.put_object(Bucket=bucket, Key="tagged", Body=b"secret", Tagging="open=no")
            s3.put_object(Bucket=bucket, Key="listed", Body=b"secret")
            s3.put_object(Bucket=bucket, Key="gone", Body=b"secret")
            s3.put_object(Bucket=bucket, Key="tagged", Body=b"public", Tagging="open=yes")
            s3.put_object(Bucket=bucket, Key="listed", Body=b"public", ACL="public-read")
            s3.delete_object(Bucket=bucket, Key="gone")
        over.set()
        found = set().union(*(each.result() for each in reading_now))
    assert found <= {"public", "AccessDenied", "NoSuchKey"}
    assert "public" in found


def test_a_list_is_given_to_the_object_that_was_looked_at(s3, bucket, served_cloud):
    """Who may change the list of an object of theirs may not change that of the next one."""
    store = served_cloud.store
    written(s3, bucket)
    there = store.buckets.get(bucket)
    looked = store.objects.find(there, b"book")
    s3.put_object(Bucket=bucket, Key="book", Body=b"another")
    assert store.objects.change(there, looked, lambda old: old).result() is False
    now = store.objects.find(there, b"book")
    s3.put_object_tagging(Bucket=bucket, Key="book", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert store.objects.change(there, now, lambda old: old).result() is True
