"""Recordings as files: MCAP, SQLite of rosbag2, and bags of ROS 1, whole or unfinished; messages stay as they are."""
