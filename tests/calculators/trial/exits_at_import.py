"""A module that cannot be imported."""

import sys

print("goodbye")
sys.exit(7)
