"""Tables for questions."""
