"""Documents that are refused, with AWS's sentences; and documents of any kind of rubbish."""

from __future__ import annotations

import contextlib
import datetime
import json
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.cloud.policy.decision import Held, Side, decide
from celaje.cloud.policy.documents import Asked, Who, document
from celaje.cloud.policy.grammar import Kind, PolicyError, check
from celaje.cloud.policy.managed import document_of, published, write

GOOD = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::shelf"}
TRUST = {"Effect": "Allow", "Principal": {"AWS": "111111111111"}, "Action": "sts:AssumeRole"}
OF_BUCKET = {**GOOD, "Principal": "*"}


def text(statement, **more):
    return json.dumps({"Version": "2012-10-17", "Statement": statement, **more})


def refusal(content, kind=Kind.IDENTITY):
    with pytest.raises(PolicyError) as error:
        check(content, kind, bucket="shelf")
    return str(error.value)


SYNTAX = "Syntax errors in policy."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "This policy contains invalid Json"),
        ("[" * 100_000, "This policy contains invalid Json"),
        ("[]", SYNTAX),
        ("{}", SYNTAX),
        (text([]), SYNTAX),
        (text(GOOD, Extra=1), SYNTAX),
        (text({**GOOD, "Extra": 1}), SYNTAX),
        (text({**GOOD, "Effect": "perhaps"}), SYNTAX),
        (text({**GOOD, "NotAction": "s3:x"}), SYNTAX),
        (text({**GOOD, "Condition": {"StringSame": {"a": "b"}}}), SYNTAX),
        ('{"Version": "2012-10-17", "Statement": [], "Statement": []}', SYNTAX),
        (json.dumps({"Version": "2000-01-01", "Statement": GOOD}), SYNTAX),
        (json.dumps({"Statement": GOOD}), "Policy document must be version 2012-10-17 or greater."),
        (
            text([{**GOOD, "Sid": "read-it"}]),
            (
                "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression "
                "[0-9A-Za-z]*"
            ),
        ),
        (text([{**GOOD, "Sid": "a"}] * 2), "Statement IDs (SID) in a single policy must be unique."),
        (text({"Effect": "Allow", "Resource": "*"}), "Policy statement must contain actions."),
        (text({**GOOD, "Action": []}), "Policy statement must contain actions."),
        (text({"Effect": "Allow", "Action": "s3:*"}), "Policy statement must contain resources."),
        (
            text({**GOOD, "Action": "ListBucket"}),
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
        ),
        (text({**GOOD, "Action": "s3:a:b"}), "Actions/Condition can contain only one colon."),
        (text({**GOOD, "Action": "a a:b"}), "Vendor a a is not valid"),
        (text({**GOOD, "Resource": "shelf"}), 'Resource shelf must be in ARN format or "*".'),
        (text({**GOOD, "Resource": "arn:s3:::shelf"}),
         'Partition "s3" is not valid for resource "arn:s3:::shelf:*".'),
        (text({**GOOD, "Resource": "arn:aws:s3:us-east-1::x"}),
         "Resource arn:aws:s3:us-east-1::x can not contain region information."),
        (text({**GOOD, "Principal": "*"}), "Policy document should not specify a principal."),
    ],
)  # fmt: skip
def test_a_policy_of_an_identity_is_refused_as_aws_does(content, message):
    assert refusal(content) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Resource": "*"}, "Has prohibited field Resource"),
        ({"Principal": {"AWS": "nobody"}}, 'Invalid principal in policy: "AWS":"nobody"'),
        ({"Principal": {"CanonicalUser": "*"}}, 'Invalid principal in policy: "CanonicalUser":"*"'),
        ({"Principal": {"Service": []}}, 'Invalid principal in policy: "Service":"[]"'),
        (
            {"Principal": {"AWS": ["*", "arn:aws:iam::111111111111:user/*"]}},
            'Invalid principal in policy: "AWS":"arn:aws:iam::111111111111:user/*"',
        ),
        ({"Action": "s3:GetObject"}, "AssumeRole policy may only specify STS AssumeRole actions."),
    ],
)
def test_a_trust_policy_is_refused_as_aws_does(change, message):
    check(text(TRUST), Kind.TRUST)
    assert refusal(text({**TRUST, **change}), Kind.TRUST) == message
    assert refusal(text({"Effect": "Allow", "Action": "sts:AssumeRole"}), Kind.TRUST) == (
        "Missing required field Principal"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Action": "ec2:RunInstances"}, "Policy has invalid action"),
        ({"Action": ["s3:GetObject", "s3:GetObjects"]}, "Policy has invalid action"),
        ({"Action": "s3:Fetch*"}, "Policy has invalid action"),
        ({"Resource": "arn:aws:s3:::shelves/*"}, "Policy has invalid resource"),
        ({"Principal": {"AWS": "nobody"}}, "Invalid principal in policy"),
        ({"Principal": {"CanonicalUser": "*"}}, "Invalid principal in policy"),
        ({"Principal": {"AWS": "arn:aws:iam::111111111111:role/a?b"}}, "Invalid principal in policy"),
        ({"Effect": "Perhaps"}, "Invalid effect: Perhaps"),
        ({"Extra": "x"}, "Unknown field Extra"),
    ],
)
def test_a_policy_of_a_bucket_is_refused_as_s3_does(change, message):
    for resource in ("arn:aws:s3:::shelf", "arn:aws:s3:::shelf/*", "arn:aws:s3:::*", "arn:aws:s3:::shelf*"):
        check(text({**OF_BUCKET, "Action": "s3:*", "Resource": resource}), Kind.BUCKET, bucket="shelf")
    assert refusal(text({**OF_BUCKET, **change}), Kind.BUCKET) == message
    for name in ("Effect", "Principal", "Action", "Resource"):
        without = {key: value for key, value in OF_BUCKET.items() if key != name}
        assert refusal(text(without), Kind.BUCKET) == f"Missing required field {name}"
    assert refusal("x", Kind.BUCKET) == "Policies must be valid JSON and the first byte must be '{'"


@pytest.mark.parametrize(
    ("actions", "resources", "fit"),
    [
        (["s3:ListBucket"], ["shelf/*"], False),
        (["s3:GetObject"], ["shelf"], False),
        (["s3:GetObject", "s3:ListBucket"], ["shelf/*"], False),
        (["s3:ListAllMyBuckets"], ["shelf", "shelf/*"], False),
        (["s3:GetObject", "s3:ListBucket"], ["shelf", "shelf/*"], True),
        (["s3:GetObject", "s3:ListBucket"], ["shelf*"], True),
        (["S3:getobject", "s3:Put*", "*"], ["shelf/public/*"], True),
        (["s3:*", "s3:List*"], ["shelf"], True),
        (["s3:GetObject"], ["shelf/one"], True),
    ],
)
def test_a_policy_of_a_bucket_names_actions_that_are_done_to_its_resources(actions, resources, fit):
    change = {"Action": actions, "Resource": [f"arn:aws:s3:::{each}" for each in resources]}
    for effect in ("Allow", "Deny"):
        policy = text({**OF_BUCKET, **change, "Effect": effect})
        if fit:
            check(policy, Kind.BUCKET, bucket="shelf")
        else:
            assert refusal(policy, Kind.BUCKET) == "Action does not apply to any resource(s) in statement"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["*", "Allow", "s3:*", "AWS"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["Version", "Statement", "Effect", "Action", "NotAction", "Resource", "Principal", "Condition"])
        | st.sampled_from(["AWS", "Service", "StringLike", "Null", "DateEquals", "ForAllValues:IpAddress", "aws:x"]),
        inner,
        max_size=6,
    ),
    max_leaves=25,
)


@given(
    _JSON | st.builds(lambda effect, rest: {"Version": "2012-10-17", "Statement": [{"Effect": effect, **rest}]},
                      st.sampled_from(["Allow", "Deny"]),
                      st.fixed_dictionaries({}, optional=dict.fromkeys(
                          ("Action", "NotAction", "Resource", "NotResource", "Principal", "Condition", "Sid"), _JSON)))
)  # fmt: skip
def test_rubbish_is_refused_or_can_be_asked(content):
    asked = Asked("s3:GetObject", "arn:aws:s3:::shelf/book", {"aws:x": ("1",)})
    for kind in Kind:
        try:
            check(json.dumps(content), kind, bucket="shelf")
        except PolicyError:
            continue
        made = document(json.dumps(content))  # what is taken can be made ready
        decide(asked, Who("1", "2"), Held((made,)), Side("1", made))
    with contextlib.suppress(PolicyError):
        document(json.dumps(content))


def test_awss_own_policies_can_all_be_made_ready():
    assert len(published()) > 1500
    for arn, policy in published().items():
        assert document(policy.document).statements, arn
        assert document_of(arn) == policy.document
        assert datetime.datetime.fromisoformat(policy.created) <= datetime.datetime.fromisoformat(policy.updated)
    assert document_of("arn:aws:iam::aws:policy/Unknown") is None
    assert document_of("arn:aws:iam::123456789012:policy/AdministratorAccess") is None


def test_the_file_of_awss_own_policies_is_made_of_what_aws_answers(tmp_path):
    policies = [
        {
            "Arn": f"arn:aws:iam::aws:policy/{name}",
            "DefaultVersionId": "v2",
            "CreateDate": "2015-02-06T18:40:15+00:00",
            "UpdateDate": "2026-01-01T00:00:00+00:00",
            "PolicyVersionList": [
                {"VersionId": "v1", "Document": {}},
                {"VersionId": "v2", "Document": {"Version": "2012-10-17", "Statement": []}},
            ],
        }
        for name in ("job-function/Second", "First")
    ]
    file = tmp_path / "policies.xz"
    assert write(json.dumps({"Policies": policies}).encode(), file) == 2
    lines = lzma.decompress(file.read_bytes()).decode().splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["First", "v2"], ["job-function/Second", "v2"]]
    assert lines[0].endswith('\t{"Version":"2012-10-17","Statement":[]}')


@pytest.mark.parametrize(
    "changed",
    [
        {"Resource": "arn:aws:s3::bucket"},
        {"Resource": "arn:aws::::bucket"},
        {"Effect": "allow"},
        {"Condition": {"DateLessThan": {"a": "yesterday"}}},
        {"Condition": {"DateLessThan": {"a": "9223372036854775808"}}},
        {"Condition": {"DateLessThan": {"a": "2016-13"}}},
    ],
)
def test_what_awss_older_parser_does_not_take_is_refused_in_its_words(changed):
    content = {"Version": "2012-10-17", "Statement": {**GOOD, **changed}}
    with pytest.raises(PolicyError, match="^The policy failed legacy parsing$"):
        check(json.dumps(content), Kind.IDENTITY)


def test_a_condition_that_is_an_empty_list_is_none():
    with pytest.raises(PolicyError, match="Syntax errors"):
        check(json.dumps({"Version": "2012-10-17", "Statement": {**GOOD, "Condition": []}}), Kind.IDENTITY)


def test_a_null_among_resources_is_overlooked():
    text = json.dumps({"Version": "2012-10-17", "Statement": {**GOOD, "Resource": ["arn:aws:s3:::shelf", None]}})
    check(text, Kind.IDENTITY)
    made = document(text)
    assert made.allowance(Asked("s3:ListBucket", "arn:aws:s3:::shelf", {}))[1] is not None
    assert made.allowance(Asked("s3:ListBucket", "arn:aws:s3:::None", {}))[1] is None
