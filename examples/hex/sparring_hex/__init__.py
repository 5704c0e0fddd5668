"""Hex that really learns, on two CPU cores, in minutes."""
