"""Run a script with FSDP2 on the CPU, for torchrun. accelerate only shards on accelerators, so it gets to see one."""

import runpy
import sys

from accelerate import PartialState
from accelerate.utils import DistributedType

from hf_gradalign.training import GradientAlignmentTrainer


def main(script, *words):
    create = GradientAlignmentTrainer.create_accelerator_and_postprocess

    def create_for_fsdp(trainer):
        if PartialState().distributed_type == DistributedType.NO:  # else an earlier trainer made it FSDP already
            PartialState().distributed_type = DistributedType.MULTI_GPU
        create(trainer)

    GradientAlignmentTrainer.create_accelerator_and_postprocess = create_for_fsdp
    sys.argv = [script, *words]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
