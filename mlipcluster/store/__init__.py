"""A root of environments that a group shares: what is registered in it, built, and kept."""
