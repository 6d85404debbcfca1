"""Faults of the machine, against real server processes: kills, full disks, locks, damage."""
