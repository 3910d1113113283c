"""EC2 and EBS: one module a noun, one function an action."""
