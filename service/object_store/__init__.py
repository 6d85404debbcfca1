"""An S3-compatible object store: whole objects by their keys, and what its errors mean."""
