"""What clients read of the default VPC and of regions."""

from __future__ import annotations

from tests.cloud.served import refusal


def by(name, *values):
    return [{"Name": name, "Values": list(values)}]


def test_a_default_vpc_has_all_that_terraform_reads_of_one(ec2):
    [vpc] = ec2.describe_vpcs(Filters=by("is-default", "true"))["Vpcs"]
    assert vpc["CidrBlock"] == "172.31.0.0/16"
    assert vpc["State"] == "available"
    assert vpc["CidrBlockAssociationSet"][0]["CidrBlock"] == "172.31.0.0/16"
    in_vpc = by("vpc-id", vpc["VpcId"])
    first, second = ec2.describe_subnets(Filters=in_vpc)["Subnets"]
    assert (first["AvailabilityZone"], first["AvailabilityZoneId"]) == ("us-east-1a", "use1-az1")
    assert second["CidrBlock"] == "172.31.16.0/20"
    assert first["DefaultForAz"]
    assert first["MapPublicIpOnLaunch"]
    assert first["AvailableIpAddressCount"] == 4091
    [gateway] = ec2.describe_internet_gateways(Filters=by("attachment.vpc-id", vpc["VpcId"]))["InternetGateways"]
    [table] = ec2.describe_route_tables(Filters=[*in_vpc, *by("association.main", "true")])["RouteTables"]
    assert {route["DestinationCidrBlock"]: route["GatewayId"] for route in table["Routes"]} == {
        "172.31.0.0/16": "local",
        "0.0.0.0/0": gateway["InternetGatewayId"],
    }
    [acl] = ec2.describe_network_acls(Filters=[*in_vpc, *by("default", "true")])["NetworkAcls"]
    assert {each["SubnetId"] for each in acl["Associations"]} == {first["SubnetId"], second["SubnetId"]}
    assert [(entry["RuleNumber"], entry["RuleAction"]) for entry in acl["Entries"] if not entry["Egress"]] == [
        (100, "allow"),
        (32767, "deny"),
    ]
    [options] = ec2.describe_dhcp_options(DhcpOptionsIds=[vpc["DhcpOptionsId"]])["DhcpOptions"]
    assert {each["Key"]: each["Values"][0]["Value"] for each in options["DhcpConfigurations"]} == {
        "domain-name": "ec2.internal",
        "domain-name-servers": "AmazonProvidedDNS",
    }
    for attribute, member in (("enableDnsSupport", "EnableDnsSupport"), ("enableDnsHostnames", "EnableDnsHostnames")):
        assert ec2.describe_vpc_attribute(VpcId=vpc["VpcId"], Attribute=attribute)[member] == {"Value": True}
    assert refusal(ec2.create_default_vpc)[0] == "DefaultVpcAlreadyExists"


def test_an_id_that_nothing_has_and_one_that_none_can_be_are_told_apart(ec2):
    assert refusal(ec2.describe_vpcs, VpcIds=["vpc-0123456789abcdef0"]) == (
        "InvalidVpcID.NotFound",
        "The vpc ID 'vpc-0123456789abcdef0' does not exist",
    )
    assert refusal(ec2.describe_vpcs, VpcIds=["vpc"]) == (
        "InvalidVpcID.Malformed",
        'Invalid id: "vpc" (expecting "vpc-...")',
    )
    assert refusal(ec2.describe_subnets, SubnetIds=["subnet-1"])[0] == "InvalidSubnetID.Malformed"
    assert refusal(ec2.describe_route_tables, RouteTableIds=["rtb-01234567"])[0] == "InvalidRouteTableID.NotFound"
    assert refusal(ec2.describe_vpcs, Filters=by("colour", "red"))[0] == "InvalidParameterValue"


def test_a_subnet_says_whether_instances_get_public_addresses(ec2):
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": False})
    [found] = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]
    assert not found["MapPublicIpOnLaunch"]
    asked = {"SubnetId": subnet, "EnableDns64": {"Value": True}}
    assert refusal(ec2.modify_subnet_attribute, **asked)[0] == "InvalidParameterCombination"


def test_pages_of_subnets_have_each_once(ec2, owner):
    assert len(ec2.describe_subnets(MaxResults=5)["Subnets"]) == 2
    ids = [ec2.describe_subnets()["Subnets"][0]["SubnetId"]]
    assert refusal(ec2.describe_subnets, SubnetIds=ids, MaxResults=5)[0] == "InvalidParameterCombination"


def test_regions_and_zones_are_those_of_the_settings(ec2, owner):
    regions = [region["RegionName"] for region in ec2.describe_regions()["Regions"]]
    assert regions == ["us-east-1", "eu-west-1"]
    assert refusal(ec2.describe_regions, RegionNames=["mars-1"]) == (
        "InvalidParameterValue",
        "Invalid region: mars-1",
    )
    zones = owner.client(region="eu-west-1").describe_availability_zones()["AvailabilityZones"]
    assert [(zone["ZoneName"], zone["ZoneId"]) for zone in zones] == [
        ("eu-west-1a", "euw1-az1"),
        ("eu-west-1b", "euw1-az2"),
    ]
    assert len(ec2.describe_availability_zones(Filters=by("zone-id", "use1-az2"))["AvailabilityZones"]) == 1
    assert refusal(ec2.describe_availability_zones, ZoneNames=["eu-west-1a"])[0] == "InvalidParameterValue"


def test_account_attributes_name_the_default_vpc(ec2):
    found = ec2.describe_account_attributes(AttributeNames=["default-vpc"])["AccountAttributes"]
    assert found[0]["AttributeValues"] == [{"AttributeValue": ec2.describe_vpcs()["Vpcs"][0]["VpcId"]}]
    assert len(ec2.describe_account_attributes()["AccountAttributes"]) == 6
    of_old = ec2.describe_account_attributes(AttributeNames=["max-instances"])["AccountAttributes"]
    assert [each["AttributeName"] for each in of_old] == ["max-instances"]
    assert refusal(ec2.describe_account_attributes, AttributeNames=["colour"])[0] == "InvalidParameterValue"


def test_types_are_described_in_pages_and_by_filters(ec2):
    names, token = [], None
    while True:
        page = ec2.describe_instance_types(MaxResults=100, **({"NextToken": token} if token else {}))
        names += [kind["InstanceType"] for kind in page["InstanceTypes"]]
        if (token := page.get("NextToken")) is None:
            break
    assert len(names) == len(set(names)) == 325
    [kind] = ec2.describe_instance_types(InstanceTypes=["m5d.large"])["InstanceTypes"]
    assert kind["ProcessorInfo"]["SupportedArchitectures"] == ["riscv64"]
    assert kind["MemoryInfo"] == {"SizeInMiB": 8192}
    cpus = {"DefaultCores": 1, "DefaultThreadsPerCore": 2, "DefaultVCpus": 2}
    assert kind["VCpuInfo"] == cpus | {"ValidCores": [1], "ValidThreadsPerCore": [2]}
    threads = [*by("vcpu-info.valid-threads-per-core", "2"), *by("instance-type", "m5d.*")]
    assert kind in ec2.describe_instance_types(Filters=threads)["InstanceTypes"]
    assert kind["InstanceStorageInfo"]["TotalSizeInGB"] == 75
    one_gib = ec2.describe_instance_types(Filters=by("memory-info.size-in-mib", "1024"))["InstanceTypes"]
    assert {each["InstanceType"] for each in one_gib} == {"t2.micro", "t3.micro", "t3a.micro", "t4g.micro"}
    assert refusal(ec2.describe_instance_types, InstanceTypes=["t9.vast"]) == (
        "InvalidInstanceType",
        "The following supplied instance types do not exist: [t9.vast]",
    )


def test_every_type_is_offered_in_every_zone(ec2):
    offered = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=by("instance-type", "t3.micro")
    )
    assert {each["Location"] for each in offered["InstanceTypeOfferings"]} == {"us-east-1a", "us-east-1b"}
