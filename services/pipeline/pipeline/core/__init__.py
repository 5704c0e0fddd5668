"""Iterations of a lane. Pure decisions."""
