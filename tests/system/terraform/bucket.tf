# A bucket with all that is set on buckets.

resource "aws_s3_bucket" "main" {
  bucket_prefix = "terraform-"
  tags          = { Stage = var.stage }
}

resource "aws_s3_bucket_versioning" "main" {
  bucket = aws_s3_bucket.main.id
  versioning_configuration { status = var.stage == "first" ? "Enabled" : "Suspended" }
}

resource "aws_s3_bucket_lifecycle_configuration" "main" {
  bucket = aws_s3_bucket.main.id
  rule {
    id     = "old versions"
    status = "Enabled"
    filter { prefix = "some/" }
    noncurrent_version_expiration { noncurrent_days = 30 }
  }
  rule {
    id     = "halves"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload { days_after_initiation = 7 }
  }
  depends_on = [aws_s3_bucket_versioning.main]
}

resource "aws_s3_bucket_cors_configuration" "main" {
  bucket = aws_s3_bucket.main.id
  cors_rule {
    allowed_methods = ["GET", "PUT"]
    allowed_origins = ["https://${var.stage}.example.com"]
    allowed_headers = ["*"]
    expose_headers  = ["ETag"]
    max_age_seconds = 3000
  }
}

resource "aws_s3_bucket_public_access_block" "main" {
  bucket                  = aws_s3_bucket.main.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "main" {
  bucket = aws_s3_bucket.main.id
  rule { object_ownership = "BucketOwnerEnforced" }
}

data "aws_iam_policy_document" "bucket" {
  statement {
    sid       = "Role"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.main.arn}/*"]
    principals {
      type        = "AWS"
      identifiers = [aws_iam_role.web.arn]
    }
  }
}

resource "aws_s3_bucket_policy" "main" {
  bucket = aws_s3_bucket.main.id
  policy = data.aws_iam_policy_document.bucket.json
}

resource "aws_s3_object" "hello" {
  bucket       = aws_s3_bucket.main.id
  key          = "some/key.txt"
  content      = "written by Terraform, ${var.stage}\n"
  content_type = "text/plain"
  tags         = { Stage = var.stage }
  depends_on   = [aws_s3_bucket_versioning.main]
}

data "aws_s3_object" "hello" {
  bucket = aws_s3_object.hello.bucket
  key    = aws_s3_object.hello.key
}
