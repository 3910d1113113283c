"""Actions that a client asks by the way, and what they change."""

from __future__ import annotations

import json
from typing import Any

from tests.cloud.served import Owner, refusal

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def test_an_instances_profile_is_replaced_and_taken_away(ec2: Any, owner: Owner, launched: str) -> None:
    iam = owner.client("iam")
    for name in ("one", "two"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)

    def profile() -> str | None:
        [instance] = ec2.describe_instances(InstanceIds=[launched])["Reservations"][0]["Instances"]
        arn = instance.get("IamInstanceProfile", {}).get("Arn")
        return arn and arn.rpartition("/")[2]

    made = ec2.associate_iam_instance_profile(IamInstanceProfile={"Name": "one"}, InstanceId=launched)
    assert profile() == "one"
    first = made["IamInstanceProfileAssociation"]["AssociationId"]
    made = ec2.replace_iam_instance_profile_association(IamInstanceProfile={"Name": "two"}, AssociationId=first)
    assert profile() == "two"
    by_instance = [{"Name": "instance-id", "Values": [launched]}]
    [found] = ec2.describe_iam_instance_profile_associations(Filters=by_instance)["IamInstanceProfileAssociations"]
    assert found["AssociationId"] == made["IamInstanceProfileAssociation"]["AssociationId"]
    ec2.disassociate_iam_instance_profile(AssociationId=found["AssociationId"])
    assert profile() is None
    assert ec2.describe_iam_instance_profile_associations()["IamInstanceProfileAssociations"] == []


def test_an_instances_settings_are_told_as_they_were_set(ec2: Any, launched: str) -> None:
    asked = {"InstanceId": launched, "CpuCredits": "standard"}
    done = ec2.modify_instance_credit_specification(InstanceCreditSpecifications=[asked])
    assert [each["InstanceId"] for each in done["SuccessfulInstanceCreditSpecifications"]] == [launched]
    [told] = ec2.describe_instance_credit_specifications(InstanceIds=[launched])["InstanceCreditSpecifications"]
    assert told == asked
    ec2.modify_instance_maintenance_options(InstanceId=launched, AutoRecovery="disabled")
    [instance] = ec2.describe_instances(InstanceIds=[launched])["Reservations"][0]["Instances"]
    assert instance["MaintenanceOptions"]["AutoRecovery"] == "disabled"
    ec2.modify_instance_attribute(InstanceId=launched, SourceDestCheck={"Value": False})
    ec2.reset_instance_attribute(InstanceId=launched, Attribute="sourceDestCheck")
    [instance] = ec2.describe_instances(InstanceIds=[launched])["Reservations"][0]["Instances"]
    assert instance["SourceDestCheck"] is True


def test_what_an_instance_cannot_be_told_is_refused(ec2: Any, launched: str) -> None:
    for asked in ({"RebootMigration": "disabled"}, {"AutoRecovery": "disabled", "RebootMigration": "disabled"}):
        code, _ = refusal(ec2.modify_instance_maintenance_options, InstanceId=launched, **asked)
        assert code == "Unsupported"
    [found] = ec2.describe_instances(InstanceIds=[launched])["Reservations"][0]["Instances"]
    assert found["MaintenanceOptions"]["AutoRecovery"] == "default"


def test_an_instance_is_named_by_its_address_and_not_otherwise(ec2: Any, launched: str) -> None:
    def options() -> Any:
        [found] = ec2.describe_instances(InstanceIds=[launched])["Reservations"][0]["Instances"]
        return found["PrivateDnsName"], found["PrivateDnsNameOptions"]

    before = options()
    own = {"PrivateDnsHostnameType": "ip-name", "EnableResourceNameDnsARecord": False}
    assert ec2.modify_private_dns_name_options(InstanceId=launched, **own)["Return"]
    for other in (
        {"PrivateDnsHostnameType": "resource-name"},
        {"EnableResourceNameDnsARecord": True},
        {"EnableResourceNameDnsAAAARecord": True},
    ):
        assert refusal(ec2.modify_private_dns_name_options, InstanceId=launched, **other)[0] == "Unsupported"
    absent = {"InstanceId": "i-0123456789abcdef0", **own}
    assert refusal(ec2.modify_private_dns_name_options, **absent)[0] == "InvalidInstanceID.NotFound"
    assert options() == before
    assert before[0].startswith("ip-172-31-")


def test_an_outward_rules_description_is_changed(ec2: Any) -> None:
    [group] = ec2.describe_security_groups()["SecurityGroups"]
    [rule] = group["IpPermissionsEgress"]
    described = {"IpProtocol": rule["IpProtocol"], "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "anywhere"}]}
    ec2.update_security_group_rule_descriptions_egress(GroupId=group["GroupId"], IpPermissions=[described])
    [group] = ec2.describe_security_groups()["SecurityGroups"]
    assert group["IpPermissionsEgress"][0]["IpRanges"] == described["IpRanges"]


def test_a_bucket_has_no_website_and_is_not_accelerated(owner: Owner) -> None:
    s3, bucket = owner.client("s3"), f"plain-{owner.account}"
    s3.create_bucket(Bucket=bucket)
    assert "Status" not in s3.get_bucket_accelerate_configuration(Bucket=bucket)
    s3.delete_bucket_website(Bucket=bucket)
    assert refusal(s3.get_bucket_website, Bucket=bucket)[0] == "NoSuchWebsiteConfiguration"


def test_routes_are_not_propagated_from_a_gateway_that_is_not_there(ec2: Any) -> None:
    [table] = ec2.describe_route_tables()["RouteTables"]
    for action in (ec2.enable_vgw_route_propagation, ec2.disable_vgw_route_propagation):
        code, _ = refusal(action, GatewayId="vgw-0123456789abcdef0", RouteTableId=table["RouteTableId"])
        assert code == "InvalidGatewayID.NotFound"


def test_what_a_volumes_health_an_addresss_name_and_a_quotas_default_are(ec2: Any, owner: Owner) -> None:
    volume = ec2.create_volume(AvailabilityZone=f"{owner.client('ec2').meta.region_name}a", Size=1)["VolumeId"]
    [status] = ec2.describe_volume_status(VolumeIds=[volume])["VolumeStatuses"]
    assert status["VolumeId"] == volume
    ec2.allocate_address()
    assert [each for each in ec2.describe_addresses_attribute()["Addresses"] if "PtrRecord" in each] == []
    quotas = owner.client("service-quotas")
    [first, *_] = quotas.list_service_quotas(ServiceCode="ec2")["Quotas"]
    default = quotas.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=first["QuotaCode"])["Quota"]
    assert default["Value"] == first["Value"]
    assert ec2.disable_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
    assert ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
