"""What we are measured against: each peer runs its own published functions in an environment of its own."""
