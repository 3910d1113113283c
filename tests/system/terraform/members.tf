# Users, groups and roles with all that hangs on them.

resource "aws_iam_user" "member" {
  name          = var.stage == "second" ? "renamed" : "member"
  path          = "/staff/"
  force_destroy = true
}

resource "aws_iam_user_policy" "member" {
  name   = "own"
  user   = aws_iam_user.member.name
  policy = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Action = ["s3:List*", "ec2:*"], Resource = "*" }] })
}

resource "aws_iam_access_key" "member" {
  user   = aws_iam_user.member.name
  status = var.stage == "second" ? "Inactive" : "Active"
}

resource "aws_iam_group" "readers" { name = "readers" }

resource "aws_iam_group_policy" "readers" {
  group  = aws_iam_group.readers.name
  policy = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Deny", Action = "ec2:TerminateInstances", Resource = "*" }] })
}

resource "aws_iam_group_membership" "readers" {
  name  = "readers"
  group = aws_iam_group.readers.name
  users = [aws_iam_user.member.name]
}

resource "aws_iam_group_policy_attachment" "readers" {
  group      = aws_iam_group.readers.name
  policy_arn = "arn:aws:iam::aws:policy/ReadOnlyAccess"
}

data "aws_iam_principal_policy_simulation" "member" {
  policy_source_arn = aws_iam_user.member.arn
  action_names      = ["ec2:RunInstances", "ec2:TerminateInstances"]
  depends_on        = [aws_iam_user_policy.member, aws_iam_group_policy.readers, aws_iam_group_membership.readers]
}

resource "aws_iam_policy" "boundary" {
  name   = "boundary"
  path   = "/bounds/"
  policy = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Action = "s3:*", Resource = "*" }] })
}

# As modules write it: principals of every sort, whether or not there are some.
data "aws_iam_policy_document" "other" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]
    principals {
      type        = "AWS"
      identifiers = ["arn:aws:iam::${data.aws_caller_identity.here.account_id}:root"]
    }
    principals {
      type        = "Service"
      identifiers = []
    }
  }
}

resource "aws_iam_role" "other" {
  name_prefix           = "other-"
  max_session_duration  = var.stage == "second" ? 7200 : 3600
  permissions_boundary  = aws_iam_policy.boundary.arn
  assume_role_policy    = data.aws_iam_policy_document.other.json
  force_detach_policies = true
}

resource "aws_iam_instance_profile" "other" {
  name_prefix = "other-"
  role        = aws_iam_role.other.name
}
