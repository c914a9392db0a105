"""Several workers for one training program: how they add up what they computed, and how they start and end."""
