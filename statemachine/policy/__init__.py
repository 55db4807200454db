"""What follows from a state: the next probe, incidents, what may be ordered. Derives no state itself."""
