# The nouns of the other files once more, said in other ways.

resource "aws_default_vpc" "main" { tags = { Name = "default" } }

resource "aws_default_subnet" "main" {
  availability_zone = data.aws_availability_zones.all.names[0]
  depends_on        = [aws_default_vpc.main]
}

resource "aws_vpc" "other" { cidr_block = "10.60.0.0/16" }

resource "aws_default_network_acl" "other" {
  default_network_acl_id = aws_vpc.other.default_network_acl_id
  ingress {
    protocol   = -1
    rule_no    = 100
    action     = "allow"
    cidr_block = "0.0.0.0/0"
    from_port  = 0
    to_port    = 0
  }
  egress {
    protocol   = -1
    rule_no    = 100
    action     = "allow"
    cidr_block = "0.0.0.0/0"
    from_port  = 0
    to_port    = 0
  }
  lifecycle { ignore_changes = [subnet_ids] }
}

resource "aws_subnet" "other" {
  count                   = 2
  vpc_id                  = aws_vpc.other.id
  cidr_block              = cidrsubnet(aws_vpc.other.cidr_block, 8, count.index)
  availability_zone_id    = data.aws_availability_zones.all.zone_ids[count.index]
  map_public_ip_on_launch = var.stage == "second"
}

resource "aws_internet_gateway" "other" {}

resource "aws_internet_gateway_attachment" "other" {
  internet_gateway_id = aws_internet_gateway.other.id
  vpc_id              = aws_vpc.other.id
}

resource "aws_route_table" "other" {
  vpc_id = aws_vpc.other.id
  route {
    cidr_block           = "192.168.0.0/16"
    network_interface_id = aws_network_interface.other.id
  }
}

resource "aws_main_route_table_association" "other" {
  vpc_id         = aws_vpc.other.id
  route_table_id = aws_route_table.other.id
}

resource "aws_nat_gateway" "inner" {
  connectivity_type = "private"
  subnet_id         = aws_subnet.other[0].id
}

resource "aws_security_group" "other" {
  name   = "other"
  vpc_id = aws_vpc.other.id
  ingress {
    description      = "web"
    from_port        = 443
    to_port          = var.stage == "second" ? 444 : 443
    protocol         = "tcp"
    cidr_blocks      = ["10.0.0.0/8"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress {
    from_port = 53
    to_port   = 53
    protocol  = "udp"
    self      = true
  }
  egress {
    from_port       = 0
    to_port         = 0
    protocol        = "-1"
    cidr_blocks     = ["0.0.0.0/0"]
    security_groups = [aws_security_group.tagged.id]
  }
}

resource "aws_security_group" "tagged" {
  vpc_id = aws_vpc.other.id
  lifecycle { ignore_changes = [tags, tags_all] }
}

resource "aws_ec2_tag" "tagged" {
  resource_id = aws_security_group.tagged.id
  key         = "Stage"
  value       = var.stage
}

resource "aws_network_interface" "other" {
  subnet_id         = aws_subnet.other[0].id
  private_ips_count = var.stage == "second" ? 2 : 1
  source_dest_check = var.stage == "second"
}

resource "aws_network_interface_sg_attachment" "other" {
  security_group_id    = aws_security_group.other.id
  network_interface_id = aws_network_interface.other.id
}

resource "aws_eip" "other" {
  domain            = "vpc"
  network_interface = aws_network_interface.other.id
  depends_on        = [aws_internet_gateway_attachment.other]
}

resource "aws_network_interface" "own" { subnet_id = aws_subnet.other[0].id }

resource "aws_instance" "with_an_interface" {
  ami           = data.aws_ami.mini.id
  instance_type = "t3.nano"
  volume_tags   = { Owner = "somebody" }
  network_interface {
    network_interface_id = aws_network_interface.own.id
    device_index         = 0
  }
  credit_specification { cpu_credits = var.stage == "second" ? "unlimited" : "standard" }
  instance_initiated_shutdown_behavior = var.stage == "second" ? "terminate" : "stop"
  maintenance_options { auto_recovery = "disabled" }
  metadata_options {
    http_endpoint          = "enabled"
    http_tokens            = var.stage == "second" ? "optional" : "required"
    instance_metadata_tags = var.stage == "second" ? "enabled" : "disabled"
  }
  root_block_device {
    volume_size = var.stage == "second" ? 4 : 3
    volume_type = "gp3"
    iops        = 3000
    throughput  = 125
  }
}

resource "aws_instance" "with_addresses" {
  ami                   = data.aws_ami.mini.id
  instance_type         = "t3.nano"
  subnet_id             = aws_subnet.other[1].id
  private_ip            = "10.60.1.77"
  secondary_private_ips = ["10.60.1.78"]
  source_dest_check     = var.stage == "first"
  user_data_base64      = base64gzip("#!/bin/sh\necho hi\n")
  iam_instance_profile  = var.stage == "second" ? aws_iam_instance_profile.other.name : null
  cpu_options {
    core_count       = 1
    threads_per_core = 2
  }
  lifecycle { ignore_changes = [associate_public_ip_address] } # follows the subnet
}

resource "aws_instance" "stopped" {
  ami           = data.aws_ami.mini.id
  instance_type = "t3.nano"
  subnet_id     = aws_default_subnet.main.id
}

resource "aws_ec2_instance_state" "stopped" {
  instance_id = aws_instance.stopped.id
  state       = "stopped"
}

resource "aws_launch_template" "other" {
  name_prefix   = "other-"
  description   = var.stage
  image_id      = data.aws_ami.mini.id
  instance_type = "t3.nano"
  network_interfaces {
    device_index                = 0
    associate_public_ip_address = true
    subnet_id                   = aws_subnet.other[0].id
    security_groups             = [aws_security_group.other.id]
    delete_on_termination       = true
  }
  monitoring { enabled = false }
  metadata_options {
    http_tokens   = "required"
    http_endpoint = "enabled"
  }
  iam_instance_profile { arn = aws_iam_instance_profile.other.arn }
  placement { availability_zone = data.aws_availability_zones.all.names[0] }
  tag_specifications {
    resource_type = "volume"
    tags          = { Of = "template" }
  }
}

resource "aws_key_pair" "other" {
  key_name_prefix = "other-"
  public_key      = var.public_key
}

resource "aws_ebs_volume" "io" {
  availability_zone = data.aws_availability_zones.all.names[0]
  size              = 4
  type              = "io2"
  iops              = var.stage == "second" ? 200 : 100
}

resource "aws_ebs_volume" "other" {
  availability_zone = data.aws_availability_zones.all.names[0]
  size              = 1
  type              = var.stage == "second" ? "gp3" : "gp2"
  iops              = var.stage == "second" ? 3000 : null
}

resource "aws_ebs_snapshot" "other" { volume_id = aws_ebs_volume.other.id }

resource "aws_ebs_snapshot_copy" "elsewhere" {
  provider           = aws.elsewhere
  source_snapshot_id = aws_ebs_snapshot.other.id
  source_region      = data.aws_region.here.name
}
