"""The control plane: EC2, EBS and S3 over HTTP, as real clients of AWS speak to them, with real machines behind."""
