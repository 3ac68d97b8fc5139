"""`python -m lambstead` is the `lambstead` command."""

from lambstead.cli.main import main

if __name__ == "__main__":
    main()
