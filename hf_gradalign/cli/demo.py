"""Open a page in the browser that judges recordings with one or more detectors, or publish it as a Space.

hf-gradalign demo runs/my-run
hf-gradalign demo runs/my-run you/your-detector --max_minutes 60
hf-gradalign demo you/your-detector --push you/detector-demo

The page works without a network. Only this machine can open it, unless you pass --host or --share. Needs Gradio (the
extra `demo`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from hf_gradalign import demo, hub
from hf_gradalign.cli.command_parser import CommandParser
from hf_gradalign.cli.commands import set_up_libraries
from hf_gradalign.utils.messages import error_line


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser("demo", __doc__, "MODEL [MODEL ...]")
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="folder or Hub id of a trained detector, or of any two-class audio classifier, or the path of a published "
        "detector's file; several are shown side by side",
    )
    page = parser.add_argument_group("page")
    page.add_argument("--max_mb", type=float, default=50, help="largest upload in megabytes (50)")
    page.add_argument("--max_minutes", type=float, default=30, help="longest recording (30)")
    page.add_argument(
        "--p_spoof", type=float, default=0.05, help="initial prior probability of a spoof on the page (0.05)"
    )
    page.add_argument("--c_miss", type=float, default=1.0, help="initial cost of rejecting bona fide speech (1)")
    page.add_argument("--c_fa", type=float, default=10.0, help="initial cost of accepting spoofed speech (10)")
    page.add_argument(
        "--undecided_band",
        type=float,
        default=0.0,
        help="initial distance from the threshold, in nats of the LLR, within which there is no verdict (0)",
    )
    server = parser.add_argument_group("server")
    server.add_argument("--host", help="address to listen on; 0.0.0.0 opens it to your network (127.0.0.1)")
    server.add_argument("--port", type=int, help="port to listen on (the first free one from 7860 on)")
    server.add_argument("--share", action="store_true", help="also make a public link, through Gradio's servers")
    models = parser.add_argument_group("models")
    models.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: the accelerator, if there is one)")
    models.add_argument(
        "--bonafide_label", help="name or number of the models' bona fide label, if the label names do not say"
    )
    models.add_argument("--token", help="access token for the Hub (default: the one from `hf auth login`)")
    models.add_argument("--trust_remote_code", action="store_true", help="run modeling code that comes with a model")
    space = parser.add_argument_group("Hugging Face Space")
    space.add_argument(
        "--push", metavar="NAMESPACE/NAME", help="publish the page as a Space instead of opening it here"
    )
    space.add_argument("--private", action="store_true", help="make the Space private, if it is new")
    arguments = parser.parse_args(argv)
    if arguments.push:
        values = {name: getattr(arguments, name) for name in ("host", "port", "share", "device")}
        here = [f"--{name}" for name, value in values.items() if value is not None and value is not False]
        if here:
            parser.error(f"{', '.join(here)}: for a page on this machine only, not with --push")
    elif arguments.private:
        parser.error("--private is for a Space: pass --push too")
    return arguments


def main(argv: Sequence[str]) -> int:
    """Serve the page, or push it, and return the exit status."""
    arguments = parse(argv)
    set_up_libraries()
    options: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in ("max_mb", "max_minutes", "p_spoof", "c_miss", "c_fa", "undecided_band")
    }
    if arguments.bonafide_label is not None:
        options["bonafide_label"] = arguments.bonafide_label
    if arguments.trust_remote_code:
        options["trust_remote_code"] = True
    try:
        if arguments.push:
            url = demo.push_space(
                arguments.models,
                arguments.push,
                token=arguments.token,
                private=arguments.private or None,
                **options,
            )
            print(f"The Space is at {url}. It takes some minutes to start.")
        else:
            demo.serve(
                arguments.models,
                host=arguments.host,
                port=arguments.port,
                share=arguments.share,
                device=arguments.device,
                token=arguments.token,
                **options,
            )
    except (ValueError, OSError, ImportError, hub.PublishingError) as error:
        print(error_line(error), file=sys.stderr)
        return 2
    return 0
