"""Functions that look at a model or a run and return a report; they neither print nor train behind your back."""
