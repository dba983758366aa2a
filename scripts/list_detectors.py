#!/usr/bin/env python
"""The command `hf-gradalign detectors`, in a clone."""

from hf_gradalign.cli.commands import start

if __name__ == "__main__":
    start("detectors")
