"""``python -m gradistill`` is the command line."""

from gradistill.cli import main

if __name__ == "__main__":
    main()
