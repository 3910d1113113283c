# Who the instance is, and what it may.

data "aws_iam_policy_document" "instances" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "web" {
  name               = "web"
  path               = "/terraform/"
  description        = "what web is, ${var.stage}"
  assume_role_policy = data.aws_iam_policy_document.instances.json
  tags               = { Stage = var.stage }
}

data "aws_iam_policy_document" "reads" {
  statement {
    actions   = var.stage == "first" ? ["s3:GetObject"] : ["s3:GetObject", "s3:ListBucket"]
    resources = [aws_s3_bucket.main.arn, "${aws_s3_bucket.main.arn}/*"]
  }
}

resource "aws_iam_policy" "reads" {
  name   = "reads-the-bucket"
  policy = data.aws_iam_policy_document.reads.json
}

resource "aws_iam_role_policy_attachment" "reads" {
  role       = aws_iam_role.web.name
  policy_arn = aws_iam_policy.reads.arn
}

resource "aws_iam_role_policy" "looks" {
  name = "looks"
  role = aws_iam_role.web.id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "ec2:Describe*", Resource = "*" }]
  })
}

resource "aws_iam_instance_profile" "web" {
  name = "web"
  role = aws_iam_role.web.name
}

resource "aws_iam_user" "reader" { name = "reader" }

resource "aws_iam_user_policy_attachment" "reader" {
  user       = aws_iam_user.reader.name
  policy_arn = aws_iam_policy.reads.arn
}

resource "aws_iam_access_key" "reader" { user = aws_iam_user.reader.name }

output "account" { value = data.aws_caller_identity.here.account_id }
output "web" { value = aws_instance.web.id }
