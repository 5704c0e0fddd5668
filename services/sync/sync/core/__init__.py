"""Custody of data. Pure decisions."""
