"""Labels that come as names: of folders, or in a table."""
