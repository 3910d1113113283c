"""A network in user space: switch, router, firewall, NAT. Its protocol code does no I/O; sockets are at its edge."""
