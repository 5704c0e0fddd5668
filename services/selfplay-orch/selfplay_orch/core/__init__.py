"""Tasks, placement and the lanes' shares. Pure decisions."""
