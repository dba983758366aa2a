"""`python -m hf_gradalign.cli COMMAND ...` is `hf-gradalign COMMAND ...`."""

from hf_gradalign.cli.main import main

if __name__ == "__main__":
    main()
