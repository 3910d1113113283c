"""The order in which documents decide, as a matrix and as laws (IAM User Guide, "Policy evaluation logic")."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.cloud.policy.decision import Held, Side, Source, decide
from celaje.cloud.policy.documents import Asked, Grade, Who, document

HOME, OTHER = "111111111111", "222222222222"
OBJECT = "arn:aws:s3:::shelf/book"
ADA = Who(HOME, f"arn:aws:iam::{HOME}:user/ada")
ROOT = Who(HOME, f"arn:aws:iam::{HOME}:root", canonical="c0ffee")
VISIT = Who(HOME, f"arn:aws:sts::{HOME}:assumed-role/Reader/visit", f"arn:aws:iam::{HOME}:role/Reader")
NOBODY = Who()
ASKED = Asked("s3:GetObject", OBJECT, {"aws:username": ("ada",)})


def policy(*statements):
    return document(json.dumps({"Version": "2012-10-17", "Statement": list(statements)}))


def says(effect="Allow", action="s3:GetObject", resource="*", **more):
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


ALLOW, DENY, OTHERWISE = policy(says()), policy(says(effect="Deny")), policy(says(action="s3:PutObject"))


def names(principal, effect="Allow"):
    return policy(says(effect=effect, Principal=principal))


def held(identity=(), boundary=None, session=None):
    def documents(one):
        return None if one is None else (one,) if not isinstance(one, tuple) else one

    return Held(documents(identity) or (), documents(boundary), documents(session))


USER, ACCOUNT, ROLE, SESSION = ADA.arn, HOME, VISIT.role, VISIT.arn
I, B, S, R = Source.IDENTITY, Source.BOUNDARY, Source.SESSION, Source.RESOURCE


@pytest.mark.parametrize(
    ("who", "owner", "mine", "theirs", "expected"),
    [
        # The identity's policies alone.
        (ADA, HOME, held(), None, (False, False, I)),
        (ADA, HOME, held(ALLOW), None, (True, False, None)),
        (ADA, HOME, held(OTHERWISE), None, (False, False, I)),
        (ADA, HOME, held((ALLOW, DENY)), None, (False, True, I)),
        # Boundaries narrow, and give nothing.
        (ADA, HOME, held(ALLOW, OTHERWISE), None, (False, False, B)),
        (ADA, HOME, held(ALLOW, ()), None, (False, False, B)),
        (ADA, HOME, held(ALLOW, ALLOW), None, (True, False, None)),
        (ADA, HOME, held((), ALLOW), None, (False, False, I)),
        (ADA, HOME, held(ALLOW, (ALLOW, DENY)), None, (False, True, B)),
        # Session policies do too.
        (VISIT, HOME, held(ALLOW, None, OTHERWISE), None, (False, False, S)),
        (VISIT, HOME, held(ALLOW, None, ALLOW), None, (True, False, None)),
        (VISIT, HOME, held((), None, ALLOW), None, (False, False, I)),
        (VISIT, HOME, held(ALLOW, ALLOW, OTHERWISE), None, (False, False, S)),
        # The resource's policy in its own account.
        (ADA, HOME, held(), names({"AWS": USER}), (True, False, None)),
        (ADA, HOME, held(), names({"AWS": ACCOUNT}), (False, False, I)),
        (ADA, HOME, held(ALLOW), names({"AWS": ACCOUNT}), (True, False, None)),
        (ADA, HOME, held(), names("*"), (True, False, None)),
        (ADA, HOME, held((), OTHERWISE), names({"AWS": USER}), (True, False, None)),
        (ADA, HOME, held(DENY), names({"AWS": USER}), (False, True, I)),
        (ADA, HOME, held(ALLOW), names("*", "Deny"), (False, True, R)),
        (ADA, HOME, held(ALLOW), names({"AWS": ACCOUNT}, "Deny"), (False, True, R)),
        (VISIT, HOME, held(), names({"AWS": ROLE}), (True, False, None)),
        (VISIT, HOME, held((), OTHERWISE), names({"AWS": ROLE}), (False, False, B)),
        (VISIT, HOME, held((), None, OTHERWISE), names({"AWS": ROLE}), (False, False, S)),
        (VISIT, HOME, held((), None, OTHERWISE), names({"AWS": SESSION}), (True, False, None)),
        # Another account: both sides.
        (ADA, OTHER, held(ALLOW), None, (False, False, R)),
        (ADA, OTHER, held(), names({"AWS": USER}), (False, False, I)),
        (ADA, OTHER, held(ALLOW), names({"AWS": USER}), (True, False, None)),
        (ADA, OTHER, held(ALLOW), names({"AWS": ACCOUNT}), (True, False, None)),
        (ADA, OTHER, held(ALLOW, OTHERWISE), names({"AWS": USER}), (False, False, B)),
        (VISIT, OTHER, held(), names({"AWS": SESSION}), (False, False, I)),
        (VISIT, OTHER, held(ALLOW, None, OTHERWISE), names({"AWS": ROLE}), (False, False, S)),
        # Roots.
        (ROOT, HOME, held(), None, (True, False, None)),
        (ROOT, HOME, held(), names("*", "Deny"), (False, True, R)),
        (ROOT, OTHER, held(), None, (False, False, R)),
        (ROOT, OTHER, held(), names({"AWS": ROOT.arn}), (True, False, None)),
        (ROOT, OTHER, held(), names({"CanonicalUser": "c0ffee"}), (True, False, None)),
        # Nobody.
        (NOBODY, HOME, held(), None, (False, False, R)),
        (NOBODY, HOME, held(), names("*"), (True, False, None)),
        (NOBODY, HOME, held(), names({"AWS": "*"}), (True, False, None)),
        (NOBODY, HOME, held(), names({"AWS": HOME}), (False, False, R)),
        (NOBODY, HOME, held(), names({"CanonicalUser": "*"}), (False, False, R)),
        (ADA, OTHER, held(ALLOW), names({"CanonicalUser": "*"}), (False, False, R)),
    ],
)
def test_documents_decide_in_awss_order(who, owner, mine, theirs, expected):
    found = decide(ASKED, who, mine, Side(owner, theirs))
    assert (found.allowed, found.denied, found.source) == expected


@pytest.mark.parametrize(
    ("who", "owner", "mine", "trust", "expected"),
    [
        # What an identity's own policies say is not enough, however much it is.
        (ADA, HOME, held(ALLOW), None, (False, False, R)),
        (ADA, HOME, held(ALLOW), names({"Service": "ec2.amazonaws.com"}), (False, False, R)),
        (ADA, HOME, held(ALLOW), names({"AWS": OTHER}), (False, False, R)),
        (ADA, HOME, held(ALLOW), names({"AWS": SESSION}), (False, False, R)),
        # A role that trusts an account leaves it to the account's policies.
        (ADA, HOME, held(), names({"AWS": ACCOUNT}), (False, False, I)),
        (ADA, HOME, held(ALLOW), names({"AWS": ACCOUNT}), (True, False, None)),
        (ADA, HOME, held(), names({"AWS": USER}), (True, False, None)),
        (ADA, HOME, held(DENY), names({"AWS": USER}), (False, True, I)),
        (VISIT, HOME, held((), None, OTHERWISE), names({"AWS": ROLE}), (False, False, S)),
        (ADA, OTHER, held(ALLOW), names({"AWS": HOME}), (True, False, None)),
        (ROOT, HOME, held(), names({"AWS": OTHER}), (False, False, R)),
        (ROOT, HOME, held(), names({"AWS": ROOT.arn}), (True, False, None)),
    ],
)
def test_a_role_is_had_by_whom_it_trusts_and_by_nobody_else(who, owner, mine, trust, expected):
    found = decide(ASKED, who, mine, Side(owner, trust, trusts=True))
    assert (found.allowed, found.denied, found.source) == expected


@pytest.mark.parametrize(
    ("statement", "action", "resource", "expected"),
    [
        (says(action="S3:getobject"), "s3:GetObject", OBJECT, True),
        (says(action=["ec2:*", "s3:Get*"]), "s3:GetObject", OBJECT, True),
        (says(action="s3:Get?bject"), "s3:GetObject", OBJECT, True),
        (says(resource="arn:aws:s3:::shelf/*"), "s3:GetObject", OBJECT, True),
        (says(resource="arn:aws:s3:::SHELF/*"), "s3:GetObject", OBJECT, False),
        (says(resource=["arn:aws:s3:::x", "arn:aws:s3:::shelf/b??k"]), "s3:GetObject", OBJECT, True),
        ({"Effect": "Allow", "NotAction": "s3:Get*", "Resource": "*"}, "s3:GetObject", OBJECT, False),
        ({"Effect": "Allow", "NotAction": "s3:Put*", "Resource": "*"}, "s3:GetObject", OBJECT, True),
        ({"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::shelf/*"}, "s3:GetObject", OBJECT, False),
        ({"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::x/*"}, "s3:GetObject", OBJECT, True),
        (says(resource="arn:aws:s3:::shelf/${aws:username}"), "s3:GetObject", "arn:aws:s3:::shelf/ada", True),
        (says(resource="arn:aws:s3:::shelf/${aws:username}"), "s3:GetObject", OBJECT, False),
        (says(resource="arn:aws:s3:::shelf/${aws:userid}"), "s3:GetObject", "arn:aws:s3:::shelf/", False),
        (says(Condition={"StringEquals": {"aws:username": "ada"}}), "s3:GetObject", OBJECT, True),
        (says(Condition={"StringEquals": {"aws:username": "bob"}}), "s3:GetObject", OBJECT, False),
    ],
)
def test_a_statement_concerns_what_it_names(statement, action, resource, expected):
    asked = Asked(action, resource, {"aws:username": ("ada",)})
    assert decide(asked, ADA, Held((policy(statement),)), Side(HOME)).allowed is expected


def test_variables_are_plain_text_in_documents_of_the_first_version():
    text = json.dumps({"Version": "2008-10-17", "Statement": [says(resource="arn:aws:s3:::shelf/${aws:username}")]})
    asked = Asked("s3:GetObject", "arn:aws:s3:::shelf/ada", {"aws:username": ("ada",)})
    assert not decide(asked, ADA, Held((document(text),)), Side(HOME)).allowed


def test_not_principal_is_about_everybody_else():
    side = Side(HOME, policy(says(effect="Deny", NotPrincipal={"AWS": USER})))
    assert decide(ASKED, ADA, Held((ALLOW,)), side).allowed
    assert decide(ASKED, VISIT, Held((ALLOW,)), side).denied
    assert decide(ASKED, NOBODY, Held(), side).denied


def test_an_access_control_list_gives_as_a_policy_does():
    assert decide(ASKED, NOBODY, Held(), Side(HOME, listed=Grade.PLAIN)).allowed
    assert decide(ASKED, Who(OTHER, f"arn:aws:iam::{OTHER}:root"), Held(), Side(HOME, listed=Grade.ACCOUNT)).allowed
    assert not decide(ASKED, Who(OTHER, "x"), Held(), Side(HOME, listed=Grade.ACCOUNT)).allowed


_DOCUMENTS = st.lists(
    st.builds(
        lambda effect, action, principal: policy(says(effect=effect, action=action, Principal=principal)),
        st.sampled_from(["Allow", "Deny"]),
        st.sampled_from(["s3:GetObject", "s3:*", "*", "s3:Put*"]),
        st.sampled_from(["*", {"AWS": USER}, {"AWS": ACCOUNT}, {"AWS": ROLE}, {"AWS": OTHER}]),
    ),
    max_size=3,
).map(tuple)
_CALLERS = st.sampled_from([ADA, ROOT, VISIT, NOBODY])
_SIDES = st.builds(
    lambda owner, found: Side(owner, found[0] if found else None), st.sampled_from([HOME, OTHER]), _DOCUMENTS
)


@given(_CALLERS, _DOCUMENTS, st.none() | _DOCUMENTS, st.none() | _DOCUMENTS, _SIDES)
def test_a_denial_always_wins_and_narrowing_never_gives(who, identity, boundary, session, side):
    def allowed(**changed):
        sides = {"identity": identity, "boundary": boundary, "session": session} | changed
        return decide(ASKED, who, Held(**sides), side).allowed

    assert not allowed(identity=(*identity, DENY))
    assert not allowed(boundary=(*(boundary or ()), DENY))
    assert not allowed(session=(*(session or ()), DENY))
    if allowed():
        assert allowed(boundary=None)
        assert allowed(session=None)
        assert allowed(identity=(*identity, ALLOW))
