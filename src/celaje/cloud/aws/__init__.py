"""AWS's wire protocols, driven by botocore's service models. Knows no action and no resource."""
