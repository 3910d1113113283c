"""What drives hosts, volumes and networks to what was promised: one controller a noun."""
