"""Many runs of one config: a grid of values, or points drawn from ranges, on all cores."""
