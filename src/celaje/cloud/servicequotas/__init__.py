"""Service Quotas: what an account may have, as far as something holds it to that."""
