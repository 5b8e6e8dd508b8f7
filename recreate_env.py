#!/usr/bin/env python3
"""Build an environment again from the lock files that dump_env_file.py wrote, and hold it against the record.

Runs from a checkout, with any Python >= 3.9 and nothing installed: see docs/environments.md, or --help.
"""

import os
import sys


def main():
    """Run it; the exit status is 0, 1 for an error, 2 for a wrong command line, 3 where it differs."""
    if sys.version_info < (3, 9):
        sys.stderr.write(
            "recreate_env.py needs Python 3.9 or newer, not %s; name a newer one\n" % sys.version.split()[0]
        )
        return 1
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from mlipcluster.recreation.command_line import recreate_main

    return recreate_main()


if __name__ == "__main__":
    sys.exit(main())
