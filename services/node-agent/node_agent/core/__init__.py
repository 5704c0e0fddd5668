"""What runs on one node. Pure decisions."""
