"""The ROS 2 side: nodes, message conversions and what they share. The only folder that imports ROS."""
