"""The right to train."""
