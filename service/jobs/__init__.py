"""Jobs: uploads, store, workflow."""
