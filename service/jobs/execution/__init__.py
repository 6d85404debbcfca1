"""Jobs on their way: which is next, where its stages run, one run of it."""
