"""Training: a loop that yields events, and what it leaves on disk."""
