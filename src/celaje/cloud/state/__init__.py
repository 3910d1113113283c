"""What the cloud has promised: intent and observations, in a database. SQLite here, nothing that PostgreSQL lacks."""
