"""The commands of robots: bags, dora and ROS 2."""
