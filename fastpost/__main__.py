"""Runs the command line: `python -m fastpost`."""

from __future__ import annotations

from fastpost.cli import main

if __name__ == "__main__":
    main()
