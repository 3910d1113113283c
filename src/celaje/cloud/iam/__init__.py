"""IAM: the identities of an account, stored whole. What their policies allow is decided elsewhere (authority/)."""
