"""What lets jobs outlast faults of the machine: waiting, looking, finding again."""
