"""`python -m gem_fast` is the `gem-fast` command."""

from .cli import main

if __name__ == "__main__":
    main()
