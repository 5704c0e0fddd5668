"""Tasks, placement and the lanes' shares."""
