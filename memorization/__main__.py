"""`python -m memorization`: the command line, where the command itself is not on the path."""

from memorization.cli import main

if __name__ == "__main__":
    main()
