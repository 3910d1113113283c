"""IAM: the identities of an account, stored whole; what their policies allow is not evaluated yet."""
