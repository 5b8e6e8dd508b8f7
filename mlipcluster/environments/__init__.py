"""What is installed in an environment, and the lock file to build it again."""
