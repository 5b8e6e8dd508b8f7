"""Environments out of records: taken out of an output, and built again. Runs in a bare Python, too."""
