"""Calculators in processes of their own: specified, started, watched and asked through a socket."""
