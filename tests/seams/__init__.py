"""What is added in one file and one row: proof that code asks what there is and not which it is."""
