"""Writing files so that nothing is torn, checking targets before the work, and reading what users bring."""
