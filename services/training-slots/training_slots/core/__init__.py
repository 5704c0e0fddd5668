"""The right to train. Pure decisions."""
