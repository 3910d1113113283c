# What others made, or the provider knows, looked up.
data "aws_vpc" "main" {
  id         = aws_vpc.main.id
  depends_on = [aws_vpc_ipv4_cidr_block_association.more]
}
data "aws_vpc" "default" { default = true }
data "aws_subnets" "main" {
  filter {
    name   = "vpc-id"
    values = [aws_vpc.main.id]
  }
  depends_on = [aws_subnet.public, aws_subnet.private]
}
data "aws_subnet" "public" { id = aws_subnet.public.id }
data "aws_route_table" "public" { subnet_id = aws_route_table_association.public.subnet_id }
data "aws_security_group" "web" { id = aws_security_group.web.id }
data "aws_internet_gateway" "main" { internet_gateway_id = aws_internet_gateway.main.id }
data "aws_nat_gateway" "main" { id = aws_nat_gateway.main.id }
data "aws_network_interface" "second" { id = aws_network_interface.second.id }
data "aws_eip" "web" { id = aws_eip_association.web.allocation_id }
data "aws_instance" "web" { instance_id = aws_instance.web.id }
data "aws_instances" "named" {
  instance_tags = { Name = "web" }
  depends_on    = [aws_instance.web]
}
data "aws_ebs_volume" "data" {
  filter {
    name   = "volume-id"
    values = [aws_ebs_volume.data.id]
  }
}
data "aws_ebs_snapshot" "data" { snapshot_ids = [aws_ebs_snapshot.data.id] }
data "aws_key_pair" "main" {
  key_name           = aws_key_pair.main.key_name
  include_public_key = true
}
data "aws_launch_template" "worker" { id = aws_launch_template.worker.id }
data "aws_ec2_instance_type" "nano" { instance_type = "t3.nano" }
data "aws_ec2_instance_type_offerings" "here" {
  location_type = "availability-zone"
  filter {
    name   = "instance-type"
    values = ["t3.nano"]
  }
}
data "aws_vpc_dhcp_options" "main" { dhcp_options_id = aws_vpc_dhcp_options_association.main.dhcp_options_id }
data "aws_ebs_encryption_by_default" "here" {}
data "aws_regions" "all" {}
data "aws_iam_role" "web" { name = aws_iam_role.web.name }
data "aws_iam_policy" "reads" { arn = aws_iam_policy.reads.arn }
data "aws_iam_policy" "administrator" { name = "AdministratorAccess" }
data "aws_iam_instance_profile" "web" { name = aws_iam_instance_profile.web.name }
data "aws_iam_user" "reader" { user_name = aws_iam_user.reader.name }
data "aws_iam_session_context" "here" { arn = data.aws_caller_identity.here.arn }
data "aws_s3_bucket" "main" { bucket = aws_s3_bucket.main.id }
data "aws_s3_objects" "main" {
  bucket     = aws_s3_bucket.main.id
  depends_on = [aws_s3_object.hello]
}
data "aws_canonical_user_id" "here" {}
data "aws_ami_ids" "own" {
  owners     = ["self"]
  depends_on = [aws_ami_copy.web]
}
data "aws_servicequotas_service_quota" "addresses" {
  service_code = "ec2"
  quota_code   = "L-0263D0A3"
}
data "aws_ssm_parameters_by_path" "mini" { path = "/aws/service/celaje/${var.image_name}/latest" }
data "aws_ec2_instance_types" "current" {
  filter {
    name   = "current-generation"
    values = ["true"]
  }
}
data "aws_availability_zone" "first" { name = data.aws_availability_zones.all.names[0] }
data "aws_iam_users" "all" { depends_on = [aws_iam_user.reader, aws_iam_user.member] }
data "aws_iam_roles" "all" { depends_on = [aws_iam_role.web, aws_iam_role.other] }
data "aws_vpcs" "all" { depends_on = [aws_vpc.main, aws_vpc.other] }
data "aws_route_tables" "other" { vpc_id = aws_route_table.other.vpc_id }
data "aws_network_acls" "other" { vpc_id = aws_vpc.other.id }
data "aws_vpc_security_group_rules" "web" {
  filter {
    name   = "group-id"
    values = [aws_security_group.web.id]
  }
  depends_on = [aws_vpc_security_group_ingress_rule.ssh, aws_vpc_security_group_ingress_rule.inner, aws_vpc_security_group_egress_rule.all]
}
data "aws_ec2_public_ipv4_pools" "none" {}
