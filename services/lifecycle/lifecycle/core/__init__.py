"""Models: registration, gating, promotion, ratings, curriculum. Pure decisions."""
