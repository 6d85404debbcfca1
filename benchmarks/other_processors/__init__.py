"""Runs any command as if on an older processor, at full speed: its programs find fewer instruction sets than there are."""
