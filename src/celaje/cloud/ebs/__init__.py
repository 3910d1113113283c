"""EBS's direct APIs: snapshots read and written block by block, without a volume."""
