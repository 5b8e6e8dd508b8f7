"""Make one output again, and say whether it came out the same."""
