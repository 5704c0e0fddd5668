"""What runs on one node."""
