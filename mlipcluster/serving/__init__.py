"""Calculators that are served: one process that others ask, and workers that it starts, ends and shares out."""
