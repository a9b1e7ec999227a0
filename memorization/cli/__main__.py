"""python -m memorization.cli is the command memorization."""

from memorization.cli import main

main()
