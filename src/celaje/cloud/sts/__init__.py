"""STS: who signs, and sessions of roles."""
