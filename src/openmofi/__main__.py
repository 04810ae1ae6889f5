"""Lets `python -m openmofi` do what `openmofi` does."""

from openmofi.cli import main

if __name__ == "__main__":
    main()
