# A bucket with access control lists, as from before 2023, which nobody may come to in clear.

resource "aws_s3_bucket" "lists" {
  bucket_prefix = "lists-"
  force_destroy = true
}

resource "aws_s3_bucket_ownership_controls" "lists" {
  bucket = aws_s3_bucket.lists.id
  rule { object_ownership = "BucketOwnerPreferred" }
}

resource "aws_s3_bucket_public_access_block" "lists" {
  bucket            = aws_s3_bucket.lists.id
  block_public_acls = false
}

resource "aws_s3_bucket_acl" "lists" {
  bucket     = aws_s3_bucket.lists.id
  acl        = var.stage == "second" ? "public-read" : "private"
  depends_on = [aws_s3_bucket_ownership_controls.lists, aws_s3_bucket_public_access_block.lists]
}

resource "aws_s3_bucket_server_side_encryption_configuration" "lists" {
  bucket = aws_s3_bucket.lists.id
  rule {
    apply_server_side_encryption_by_default { sse_algorithm = "AES256" }
  }
}

data "aws_iam_policy_document" "secure" {
  statement {
    sid       = "InClear"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.lists.arn, "${aws_s3_bucket.lists.arn}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
  statement {
    sid       = "OldTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.lists.arn, "${aws_s3_bucket.lists.arn}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "NumericLessThan"
      variable = "s3:TlsVersion"
      values   = ["1.2"]
    }
  }
}

resource "aws_s3_bucket_policy" "lists" {
  bucket = aws_s3_bucket.lists.id
  policy = data.aws_iam_policy_document.secure.json
}

resource "aws_s3_object" "file" {
  bucket        = aws_s3_bucket.lists.id
  key           = "folder/second.tfvars"
  source        = "${path.module}/second.tfvars"
  etag          = filemd5("${path.module}/second.tfvars")
  acl           = "private"
  cache_control = "max-age=60"
  metadata      = { stage = var.stage }
  depends_on    = [aws_s3_bucket_ownership_controls.lists]
}

resource "aws_s3_object_copy" "file" {
  bucket = aws_s3_bucket.lists.id
  key    = "copied"
  source = "${aws_s3_object.file.bucket}/${aws_s3_object.file.key}"
}
