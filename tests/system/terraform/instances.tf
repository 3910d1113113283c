# Instances with what hangs on them.

resource "aws_key_pair" "main" {
  key_name   = "terraform"
  public_key = var.public_key
}

resource "aws_instance" "web" {
  ami                    = data.aws_ami.mini.id
  instance_type          = var.instance_type
  key_name               = aws_key_pair.main.key_name
  subnet_id              = aws_subnet.public.id
  vpc_security_group_ids = concat([aws_security_group.web.id], var.second_group ? [aws_security_group.inner.id] : [])
  iam_instance_profile   = aws_iam_instance_profile.web.name
  user_data              = var.user_data
  monitoring             = false
  tags                   = { Name = "web", Stage = var.stage }
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 2
  }
  root_block_device {
    volume_size = 3
    volume_type = "gp3"
    tags        = { Name = "root of web" }
  }
  depends_on = [aws_internet_gateway.main]
}

resource "aws_ebs_volume" "data" {
  availability_zone = aws_subnet.public.availability_zone
  size              = var.volume_size
  type              = "gp3"
  tags              = { Name = "data", Stage = var.stage }
}

resource "aws_volume_attachment" "data" {
  device_name = "/dev/sdf"
  instance_id = aws_instance.web.id
  volume_id   = aws_ebs_volume.data.id
}

resource "aws_ebs_snapshot" "data" {
  volume_id   = aws_ebs_volume.data.id
  description = "of what was there first"
  tags        = { Stage = var.stage }
}

resource "aws_eip" "web" {
  domain = "vpc"
  tags   = { Stage = var.stage }
}

resource "aws_eip_association" "web" {
  instance_id   = aws_instance.web.id
  allocation_id = aws_eip.web.id
}

resource "aws_network_interface" "second" {
  subnet_id       = aws_subnet.public.id
  description     = "a second card of web, ${var.stage}"
  private_ips     = ["10.50.1.20", "10.50.1.21"]
  security_groups = [aws_security_group.inner.id]
}

resource "aws_network_interface_attachment" "second" {
  instance_id          = aws_instance.web.id
  network_interface_id = aws_network_interface.second.id
  device_index         = 1
  depends_on           = [aws_eip_association.web] # which names an instance: it must have one interface by then
}

resource "aws_launch_template" "worker" {
  name                   = "worker"
  image_id               = data.aws_ssm_parameter.mini.insecure_value
  instance_type          = "t3.nano"
  key_name               = aws_key_pair.main.key_name
  vpc_security_group_ids = [aws_security_group.inner.id]
  update_default_version = true
  user_data              = base64encode("#!/bin/sh\n: ${var.stage}\n")
  block_device_mappings {
    device_name = data.aws_ami.mini.root_device_name
    ebs {
      volume_size           = 3
      volume_type           = "gp3"
      delete_on_termination = true
    }
  }
  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "worker" }
  }
}

resource "aws_instance" "worker" {
  subnet_id = aws_subnet.private.id
  launch_template {
    id      = aws_launch_template.worker.id
    version = "1"
  }
  user_data = "#!/bin/sh\n: the worker's own\n"
  tags      = { Name = "worker", Stage = var.stage }
  ebs_block_device {
    device_name = "/dev/sdb"
    volume_size = 1
    tags        = { Name = "second of worker" }
  }
}

# Images, of an instance and of another image.

resource "aws_ami_from_instance" "web" {
  name                    = "of-web"
  source_instance_id      = aws_instance.web.id
  snapshot_without_reboot = true
  tags                    = { Stage = var.stage }
}

resource "aws_ami_copy" "web" {
  name              = "copy-of-web"
  source_ami_id     = aws_ami_from_instance.web.id
  source_ami_region = data.aws_region.here.name
}

resource "aws_ami_copy" "elsewhere" {
  provider          = aws.elsewhere
  name              = "copy-of-web"
  source_ami_id     = aws_ami_from_instance.web.id
  source_ami_region = data.aws_region.here.name
}

resource "aws_ami_launch_permission" "web" {
  image_id   = aws_ami_copy.web.id
  account_id = "123456789012"
}

resource "aws_ebs_snapshot_copy" "data" {
  source_snapshot_id = aws_ebs_snapshot.data.id
  source_region      = data.aws_region.here.name
}

resource "aws_snapshot_create_volume_permission" "data" {
  snapshot_id = aws_ebs_snapshot.data.id
  account_id  = "123456789012"
}

resource "aws_ebs_volume" "of_snapshot" {
  availability_zone = aws_subnet.private.availability_zone
  snapshot_id       = aws_ebs_snapshot.data.id
  type              = "gp2"
}
