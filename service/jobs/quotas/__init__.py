"""What a tenant has taken: files, jobs, minutes; and whether it may take more."""
