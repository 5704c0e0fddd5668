"""Custody of data."""
