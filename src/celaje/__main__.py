"""`python -m celaje` is the `celaje` command."""

from celaje.cli.command import main

if __name__ == "__main__":
    raise SystemExit(main())
