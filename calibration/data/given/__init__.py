"""What users hand over in another form: folders, packed into one file."""
