"""Launch templates: parameters of launches under a name, in numbered versions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2 import images, quotas
from celaje.cloud.ec2.identifiers import checked_id
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.ec2.launch_parameters import answered_data, checked_data, merged
from celaje.cloud.ec2.quotas import refuse_beyond
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.launch_templates import LaunchTemplate, LaunchTemplateVersion, versions_of
from celaje.cloud.state.tags import answered_tags, remove_tags, set_tags, tags_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
LONGEST_DESCRIPTION = 255
LATEST, DEFAULT = "$Latest", "$Default"
MALFORMED = "InvalidLaunchTemplateId"
_NAME = re.compile(r"[a-zA-Z0-9().\-/_]{3,128}")
_KIND = Kind(LaunchTemplate, "lt", MALFORMED, f"{MALFORMED}.NotFound", "launch template")


def find(call: Call, identifier: str) -> LaunchTemplate:
    """The caller's template of that identifier. AwsError InvalidLaunchTemplateId.Malformed, .NotFound."""
    row = call.session.get(LaunchTemplate, checked_id(identifier, "lt", MALFORMED))
    if row is None or (row.account, row.region) != (call.account, call.region):
        raise AwsError(
            f"{MALFORMED}.NotFound", f"The specified launch template, with template ID {identifier}, does not exist."
        )
    return row


def find_named(call: Call, name: str) -> LaunchTemplate:
    """The caller's template of that name. AwsError InvalidLaunchTemplateName.NotFoundException."""
    row = _named(call, name)
    if row is None:
        raise AwsError(
            "InvalidLaunchTemplateName.NotFoundException",
            f"The specified launch template, with template name {name[:128]}, does not exist.",
        )
    return row


def _named(call: Call, name: str) -> LaunchTemplate | None:
    owner = (LaunchTemplate.account == call.account, LaunchTemplate.region == call.region)
    return call.session.scalars(select(LaunchTemplate).where(*owner, LaunchTemplate.name == name)).first()


def chosen(call: Call, given: Mapping[str, Any]) -> LaunchTemplate:
    """The template that a request names, by LaunchTemplateId or LaunchTemplateName. AwsError."""
    identifier, name = given.get("LaunchTemplateId"), given.get("LaunchTemplateName")
    if identifier and name:
        raise AwsError(
            "InvalidParameterCombination",
            "The request may contain either a launch template ID or a launch template name, not both",
        )
    if identifier:
        return find(call, str(identifier))
    if name:
        return find_named(call, str(name))
    raise AwsError("MissingParameter", "The request must contain either a launch template ID or a launch template name")


def version_of(call: Call, template: LaunchTemplate, version: str | None) -> LaunchTemplateVersion:
    """The version of a number, `$Latest` or `$Default`, which is also what None means. AwsError."""
    if version == LATEST:
        return versions_of(call.session, template.id)[-1]
    if version in (None, "", DEFAULT):
        number = template.default_version
    else:
        number = _number(version)
    row = call.session.get(LaunchTemplateVersion, (template.id, number))
    if row is None:
        raise AwsError(
            "InvalidLaunchTemplateId.VersionNotFound",
            f"Could not find the specified version {version} for the launch template with ID {template.id}.",
        )
    return row


def _number(version: str | None) -> int:
    if version is None or not re.fullmatch(r"[0-9]{1,9}", version):
        raise AwsError(
            "InvalidParameterValue",
            f"Invalid launch template version: '{(version or '')[:32]}'. It is a number, {LATEST} or {DEFAULT}.",
        )
    return int(version)


def with_template(call: Call, request: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
    """A launch's parameters, over those of the template that it names, and the tags by which instances tell of it.
    AwsError, also where the caller may not launch what comes of both, or pass its role."""
    given = request.get("LaunchTemplate")
    if not given:
        return request, {}
    template = chosen(call, given)
    version = version_of(call, template, given.get("Version"))
    told = {
        "aws:ec2launchtemplate:id": template.id,
        "aws:ec2launchtemplate:version": str(version.version),
    }
    found = merged(version.data, request)
    if call.authority is not None:
        call.authority.check(call, found)
    return found, told


def _checked_description(text: str | None) -> str:
    if text and len(text) > LONGEST_DESCRIPTION:
        raise AwsError("InvalidParameterValue", f"A version's description has at most {LONGEST_DESCRIPTION} characters")
    return text or ""


@ACTIONS.action
def create_launch_template(call: Call, request: ec2.CreateLaunchTemplateRequestTypeDef) -> Answer:
    """With its first version."""
    name = request["LaunchTemplateName"]
    if not _NAME.fullmatch(name):
        raise AwsError(
            "InvalidLaunchTemplateName.MalformedException",
            "A launch template name must be between 3 and 128 characters, and may contain letters, numbers, and the "
            "following characters: - ( ) . / _",
        )
    if _named(call, name) is not None:
        raise AwsError("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
    refuse_beyond(call.session, call, LaunchTemplate, quotas.LAUNCH_TEMPLATES, "launch templates")
    tags = tags_for(request.get("TagSpecifications"), "launch-template")
    template = LaunchTemplate(
        id=new_id("lt"),
        account=call.account,
        region=call.region,
        created=call.now,
        name=name,
        created_by=call.caller.arn,
        default_version=1,
        made=0,
    )
    call.session.add(template)
    _add_version(call, template, request.get("VersionDescription"), checked_data(request["LaunchTemplateData"]))
    set_tags(call.session, template.id, "launch-template", call.account, call.region, tags)
    return {"LaunchTemplate": _described(call, template, tags)}


def _add_version(
    call: Call, template: LaunchTemplate, description: str | None, data: dict[str, Any]
) -> LaunchTemplateVersion:
    there = select(func.count()).where(LaunchTemplateVersion.template == template.id)
    if (call.session.scalar(there) or 0) >= quotas.LAUNCH_TEMPLATE_VERSIONS:
        raise AwsError(
            "VersionLimitExceeded",
            f"A launch template has at most {quotas.LAUNCH_TEMPLATE_VERSIONS} versions; delete some first.",
        )
    if len(json.dumps(data, default=str)) > quotas.LAUNCH_TEMPLATE_BYTES:
        raise AwsError(
            "InvalidParameterValue",
            f"The parameters of a launch template have at most {quotas.LAUNCH_TEMPLATE_BYTES} bytes; leave some out.",
        )
    template.made += 1
    version = LaunchTemplateVersion(
        template=template.id,
        version=template.made,
        account=call.account,
        description=_checked_description(description),
        data=data,
        created=call.now,
        created_by=call.caller.arn,
    )
    call.session.add(version)
    call.session.flush()
    return version


@ACTIONS.action
def create_launch_template_version(call: Call, request: ec2.CreateLaunchTemplateVersionRequestTypeDef) -> Answer:
    """Of the given parameters alone, or over those of SourceVersion."""
    template = chosen(call, request)
    data = checked_data(request["LaunchTemplateData"])
    source = request.get("SourceVersion")
    if source:
        data = {**version_of(call, template, source).data, **data}
    version = _add_version(call, template, request.get("VersionDescription"), data)
    return {"LaunchTemplateVersion": _described_version(template, version)}


@ACTIONS.action
def modify_launch_template(call: Call, request: ec2.ModifyLaunchTemplateRequestTypeDef) -> Answer:
    """Which version is the default."""
    if request.get("LaunchTemplateId") and request.get("LaunchTemplateName"):
        raise AwsError(
            "InvalidParameterCombination",
            "Either provide launch template ID or launch template name to modify the template.",
        )
    template = chosen(call, request)
    wanted = request.get("DefaultVersion")
    if not wanted:
        raise AwsError("MissingParameter", "The request must contain the parameter SetDefaultVersion")
    try:
        template.default_version = version_of(call, template, wanted).version
    except AwsError as error:
        if not error.code.endswith("VersionNotFound"):
            raise
        message = f"The launch template version {wanted[:32]} is not found for the specified launch template."
        raise AwsError(error.code, message) from None
    return {"LaunchTemplate": _described(call, template, tags_of(call.session, [template.id])[template.id])}


@ACTIONS.action
def delete_launch_template(call: Call, request: ec2.DeleteLaunchTemplateRequestTypeDef) -> Answer:
    """With all its versions; what was launched of it stays."""
    template = chosen(call, request)
    answer = {"LaunchTemplate": _described(call, template, tags_of(call.session, [template.id])[template.id])}
    for version in versions_of(call.session, template.id):
        call.session.delete(version)
    call.session.delete(template)
    remove_tags(call.session, template.id)
    return answer


@ACTIONS.action
def delete_launch_template_versions(call: Call, request: ec2.DeleteLaunchTemplateVersionsRequestTypeDef) -> Answer:
    """Each that there is, but never the default one."""
    template = chosen(call, request)
    if len(request["Versions"]) > quotas.VERSIONS_AT_ONCE:
        raise AwsError("InvalidParameterValue", f"At most {quotas.VERSIONS_AT_ONCE} versions at once")
    numbers = [_number(each) for each in request["Versions"]]
    common = {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name}
    done: list[dict[str, object]] = []
    failed: list[dict[str, object]] = []
    for number in dict.fromkeys(numbers):
        row = call.session.get(LaunchTemplateVersion, (template.id, number))
        if row is not None and number != template.default_version:
            call.session.delete(row)
            done.append({**common, "VersionNumber": number})
            continue
        code, message = "launchTemplateVersionDoesNotExist", f"Launch template version {number} does not exist"
        if row is not None:
            code = "unexpectedError"
            message = f"Version {number} is the default version; make another one the default by ModifyLaunchTemplate"
        failed.append({**common, "VersionNumber": number, "ResponseError": {"Code": code, "Message": message}})
    return {
        "SuccessfullyDeletedLaunchTemplateVersions": done,
        "UnsuccessfullyDeletedLaunchTemplateVersions": failed,
    }


_FILTERS = Filters[Tagged[LaunchTemplate]](
    {
        "create-time": lambda one: one.row.created,
        "launch-template-name": lambda one: one.row.name,
    },
    tags=lambda one: one.tags,
)


@ACTIONS.action
def describe_launch_templates(call: Call, request: ec2.DescribeLaunchTemplatesRequestTypeDef) -> Answer:
    """Those of the ids and names, or all."""
    identifiers = [find(call, each).id for each in request.get("LaunchTemplateIds") or ()]
    named = [_named(call, each) for each in request.get("LaunchTemplateNames") or ()]
    if None in named:
        raise AwsError(
            "InvalidLaunchTemplateName.NotFoundException",
            "At least one of the launch templates specified in the request does not exist.",
        )
    identifiers += [each.id for each in named if each is not None]
    shown, token = _KIND.listed(call, request, identifiers, _FILTERS)
    return {"LaunchTemplates": [_described(call, one.row, one.tags) for one in shown], "NextToken": token}


def _described(call: Call, template: LaunchTemplate, tags: Mapping[str, str]) -> dict[str, object]:
    latest = select(func.max(LaunchTemplateVersion.version)).where(LaunchTemplateVersion.template == template.id)
    return {
        "LaunchTemplateId": template.id,
        "LaunchTemplateName": template.name,
        "CreateTime": template.created,
        "CreatedBy": template.created_by,
        "DefaultVersionNumber": template.default_version,
        "LatestVersionNumber": call.session.scalar(latest),
        "Tags": answered_tags(tags) or None,
    }


def _described_version(template: LaunchTemplate, version: LaunchTemplateVersion) -> dict[str, object]:
    return {
        "LaunchTemplateId": template.id,
        "LaunchTemplateName": template.name,
        "VersionNumber": version.version,
        "VersionDescription": version.description or None,
        "CreateTime": version.created,
        "CreatedBy": version.created_by,
        "DefaultVersion": version.version == template.default_version,
        "LaunchTemplateData": answered_data(version.data),
    }


def _resolved(call: Call, described: dict[str, object]) -> dict[str, object]:
    """The same with the image that a parameter's name stands for now."""
    data = described["LaunchTemplateData"]
    assert isinstance(data, dict)
    image = str(data.get("ImageId") or "")
    if image.startswith(images.RESOLVED):
        data["ImageId"] = images.launchable(call, image).id
    return described


class _Version:
    """A version of a template, for filters."""

    def __init__(self, template: LaunchTemplate, version: LaunchTemplateVersion) -> None:
        self.template = template
        self.version = version
        self.data: Mapping[str, Any] = version.data
        self.options: Mapping[str, Any] = version.data.get("MetadataOptions") or {}
        self.profile: Mapping[str, Any] = version.data.get("IamInstanceProfile") or {}


# AWS's sentence; its quotation marks are typographical.
_WHICH_VERSIONS = (
    "To describe the launch template data for all your launch templates, for <--versions> specify <$Latest>, "
    "<$Default>, or both, and omit <--launch-template-id>, <--launch-template-name>, and version numbers. To describe "
    "the launch template data for a specific launch template, specify <--launch-template-id> or "
    "<--launch-template-name>, and for <--versions> specify one or more of the following values: <$Latest>, "
    "<$Default>, or one or more version numbers."
).translate({ord("<"): "\u2018", ord(">"): "\u2019"})
_VERSION_FILTERS = Filters[_Version](
    {
        "create-time": lambda one: one.version.created,
        "ebs-optimized": lambda one: one.data.get("EbsOptimized"),
        "http-endpoint": lambda one: one.options.get("HttpEndpoint"),
        "http-protocol-ipv4": lambda one: one.options.get("HttpProtocolIpv4"),
        "http-tokens": lambda one: one.options.get("HttpTokens"),
        "iam-instance-profile": lambda one: one.profile.get("Arn") or one.profile.get("Name"),
        "image-id": lambda one: one.data.get("ImageId"),
        "instance-type": lambda one: one.data.get("InstanceType"),
        "is-default-version": lambda one: one.version.version == one.template.default_version,
        "kernel-id": lambda one: one.data.get("KernelId"),
        "ram-disk-id": lambda one: one.data.get("RamDiskId"),
    }
)


@ACTIONS.action
def describe_launch_template_versions(call: Call, request: ec2.DescribeLaunchTemplateVersionsRequestTypeDef) -> Answer:
    """Of one template those that are named, or all, the newest first; of all templates the latest or the default."""
    matches = _VERSION_FILTERS.matcher(request.get("Filters"))
    wanted = request.get("Versions") or ()
    resolve = bool(request.get("ResolveAlias"))
    if request.get("LaunchTemplateId") or request.get("LaunchTemplateName"):
        found = list(_of_one(call, chosen(call, request), request))
    else:
        if not wanted or not set(wanted) <= {LATEST, DEFAULT}:
            raise AwsError("InvalidParameterValue" if wanted else "MissingParameter", _WHICH_VERSIONS)
        templates = _KIND.rows(call)
        found = [
            _Version(template, row)
            for template in templates
            for row in {each.version: each for each in (version_of(call, template, one) for one in wanted)}.values()
        ]
    shown, token = page(
        call,
        request,
        filter(matches, found),
        lambda one: f"{one.template.id} {10**9 - one.version.version:010}",
        least=1,
        most=200,
    )
    return {
        "LaunchTemplateVersions": [
            _resolved(call, _described_version(one.template, one.version))
            if resolve
            else _described_version(one.template, one.version)
            for one in shown
        ],
        "NextToken": token,
    }


def _of_one(
    call: Call, template: LaunchTemplate, request: ec2.DescribeLaunchTemplateVersionsRequestTypeDef
) -> Iterable[_Version]:
    least, most = request.get("MinVersion"), request.get("MaxVersion")
    wanted = request.get("Versions")
    if wanted:
        if least or most:
            raise AwsError("InvalidParameterCombination", "Versions cannot be given together with MinVersion and so on")
        rows = {row.version: row for row in (version_of(call, template, one) for one in wanted)}
        return [_Version(template, row) for row in rows.values()]
    first = _number(least) if least else 0
    last = _number(most) if most else template.made
    return [_Version(template, row) for row in versions_of(call.session, template.id) if first <= row.version <= last]
