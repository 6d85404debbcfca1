"""Files of jobs in an object store: what lies there, who needs it, and what each process keeps of it."""
