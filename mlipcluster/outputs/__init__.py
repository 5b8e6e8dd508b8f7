"""Outputs: the files of a run, its ledger, and what a user reads out of them."""
