"""What rules judge by: each file collects one kind of evidence."""
