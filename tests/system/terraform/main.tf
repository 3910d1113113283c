# What people write for AWS, with nothing in it for celaje but names. Where it answers, the environment says:
# AWS_ENDPOINT_URL and the keys. Applied, planned again (nothing to do) and destroyed by test_cloud_clients.py.

terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

provider "aws" {
  s3_use_path_style           = true
  skip_metadata_api_check     = true
  skip_credentials_validation = false
}

variable "public_key" { type = string }
variable "image_name" { type = string }

data "aws_availability_zones" "all" { state = "available" }

data "aws_ami" "mini" {
  most_recent = true
  owners      = ["amazon"]
  filter {
    name   = "name"
    values = [var.image_name]
  }
}

resource "aws_vpc" "main" {
  cidr_block           = "10.50.0.0/16"
  enable_dns_hostnames = true
  tags                 = { Name = "terraform" }
}

resource "aws_subnet" "public" {
  vpc_id                  = aws_vpc.main.id
  cidr_block              = "10.50.1.0/24"
  availability_zone       = data.aws_availability_zones.all.names[0]
  map_public_ip_on_launch = true
}

resource "aws_internet_gateway" "main" { vpc_id = aws_vpc.main.id }

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.main.id
  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.main.id
  }
}

resource "aws_route_table_association" "public" {
  subnet_id      = aws_subnet.public.id
  route_table_id = aws_route_table.public.id
}

resource "aws_security_group" "web" {
  name        = "web"
  description = "reached by SSH"
  vpc_id      = aws_vpc.main.id
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  security_group_id = aws_security_group.web.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
}

resource "aws_vpc_security_group_egress_rule" "all" {
  security_group_id = aws_security_group.web.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_key_pair" "main" {
  key_name   = "terraform"
  public_key = var.public_key
}

resource "aws_launch_template" "web" {
  name                   = "web"
  image_id               = data.aws_ami.mini.id
  instance_type          = "t3.nano"
  key_name               = aws_key_pair.main.key_name
  vpc_security_group_ids = [aws_security_group.web.id]
}

resource "aws_instance" "web" {
  ami                    = data.aws_ami.mini.id
  instance_type          = "t3.nano"
  key_name               = aws_key_pair.main.key_name
  subnet_id              = aws_subnet.public.id
  vpc_security_group_ids = [aws_security_group.web.id]
  user_data              = "#!/bin/sh\ntrue\n"
  tags                   = { Name = "web" }
  root_block_device { volume_size = 3 }
}

resource "aws_ebs_volume" "data" {
  availability_zone = aws_instance.web.availability_zone
  size              = 1
  type              = "gp3"
}

resource "aws_volume_attachment" "data" {
  device_name = "/dev/sdf"
  instance_id = aws_instance.web.id
  volume_id   = aws_ebs_volume.data.id
}

resource "aws_eip" "web" {
  domain   = "vpc"
  instance = aws_instance.web.id
}

resource "aws_network_interface" "spare" {
  subnet_id       = aws_subnet.public.id
  security_groups = [aws_security_group.web.id]
}

resource "aws_ami_from_instance" "web" {
  name                    = "of-web"
  source_instance_id      = aws_instance.web.id
  snapshot_without_reboot = true
}

resource "aws_s3_bucket" "main" { bucket_prefix = "terraform-" }

resource "aws_s3_object" "hello" {
  bucket  = aws_s3_bucket.main.id
  key     = "some/key.txt"
  content = "written by Terraform\n"
}
