"""`python -m cnnbp_cli` is the command `cnnbp`."""

from cnnbp_cli.cli.main import main

if __name__ == "__main__":
    main()
