"""S3: objects in buckets. `store` keeps them; the other modules are the operations that clients call."""
