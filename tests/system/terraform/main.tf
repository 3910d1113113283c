# What people write for AWS, with nothing in it for celaje but the image's name. Where it answers, the environment says:
# AWS_ENDPOINT_URL and the keys. Applied, planned again (nothing to do), changed, and destroyed by test_terraform.py.

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.0"
    }
  }
}

provider "aws" {
  s3_use_path_style = true # AWS_ENDPOINT_URL is an address, which no bucket's name can go before
  default_tags { tags = { Project = "celaje" } }
}

provider "aws" {
  alias  = "elsewhere"
  region = "eu-west-1"
}

variable "public_key" { type = string }
variable "image_name" { type = string }

# What the second apply changes, where the first one left it.
variable "stage" { default = "first" }
variable "instance_type" { default = "t3.nano" }
variable "volume_size" { default = 1 }
variable "user_data" { default = "#!/bin/sh\ntrue\n" }
variable "second_group" { default = false }

data "aws_caller_identity" "here" {}
data "aws_partition" "here" {}
data "aws_region" "here" {}
data "aws_availability_zones" "all" { state = "available" }

data "aws_ami" "mini" {
  most_recent = true
  owners      = ["amazon"]
  filter {
    name   = "name"
    values = [var.image_name]
  }
}

data "aws_ssm_parameter" "mini" { name = "/aws/service/celaje/${var.image_name}/latest/image-id" }
