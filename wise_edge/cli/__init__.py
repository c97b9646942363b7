"""The command line: one file a command, stages imported inside the commands."""
