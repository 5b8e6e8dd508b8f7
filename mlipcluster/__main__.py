"""``python -m mlipcluster``: the command line."""

from mlipcluster.cli.app import main

if __name__ == "__main__":
    main()
