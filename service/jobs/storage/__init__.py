"""The disk and the database under the jobs: what their errors mean, and who waits for them."""
