"""Node facts, back-pressure, breakers and dead letters. Pure decisions."""
