"""Reading videos and cameras, and writing videos, through FFmpeg's libraries (PyAV)."""
