"""One host: a process per machine, a process per network, and what finds them again."""
