"""Statistics of matches: the sequential test, Elo with its interval, ratings of a pool, training windows."""
