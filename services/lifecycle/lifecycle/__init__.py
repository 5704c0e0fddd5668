"""Models: registration, gating, promotion, ratings, curriculum."""
