"""Run a script with FSDP2 on the CPU, for torchrun. accelerate only shards on accelerators, so it gets to see one."""

import runpy
import sys

from accelerate import PartialState
from accelerate.utils import DistributedType


def main(script, *words):
    initialize = PartialState.__init__

    def initialize_for_fsdp(state, *positional, **options):
        initialize(state, *positional, **options)
        if state.distributed_type == DistributedType.NO:  # else an earlier one made it FSDP already
            state.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = initialize_for_fsdp
    sys.argv = [script, *words]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
