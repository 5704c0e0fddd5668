"""Iterations of a lane."""
