"""Organizations: accounts, made and closed by the root account."""
