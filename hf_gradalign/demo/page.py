"""The page: its elements, how they work together, and its server."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from hf_gradalign.conversion.by_name import HUB_OPTIONS
from hf_gradalign.demo.actions import Choices, Judged, PageActions, Shown
from hf_gradalign.demo.examples import CREDITS, write_examples
from hf_gradalign.demo.gradio_library import BrokenUploads, prepare_gradio
from hf_gradalign.demo.judging import Settings
from hf_gradalign.demo.model_cards import ModelCard, read_card
from hf_gradalign.demo.page_guard import PageGuard
from hf_gradalign.demo.recording import check_limits
from hf_gradalign.demo.rendering import credits_html, intro_html, models_html
from hf_gradalign.metrics import DetectionCosts
from hf_gradalign.scoring import SpoofScorer
from hf_gradalign.utils.signals import ending_signals, leave_closed_terminal

prepare_gradio()

import gradio as gr  # noqa: E402
import gradio_client.utils  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402

_ASSETS = Path(__file__).parent / "assets"
_TITLE = "Genuine or fake speech?"
# How often uploads are checked, and the age at which they are deleted, in seconds.
_CLEANING = (60, 900)
_MOST_WAITING = 20
_HIGHEST_PORT = 65_535
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


class DemoPage(gr.Blocks):
    """The page: a Gradio app that launches with its own style, limits and protection.

    Args:
        scorers: The models, by display name.
        cards: Their cards.
        settings: The initial values of the sliders.
        max_mb: The largest upload, in megabytes.
        max_minutes: The longest recording.
    """

    def __init__(
        self,
        scorers: Mapping[str, SpoofScorer],
        cards: Mapping[str, ModelCard],
        settings: Settings,
        *,
        max_mb: float,
        max_minutes: float,
    ) -> None:
        self._max_mb = max_mb
        self._scorers, self._cards = scorers, cards
        self._actions = PageActions(scorers, max_minutes)
        self._examples = TemporaryDirectory(prefix="hf_gradalign_examples_")
        super().__init__(title=_TITLE, analytics_enabled=False, delete_cache=_CLEANING)
        self.temp_file_sets.append(BrokenUploads())
        with self:
            self._build(settings, f"Up to {max_mb:g} MB and {max_minutes:g} minutes.")
        self.queue(max_size=_MOST_WAITING, api_open=False)

    def launch(self, **options: Any) -> Any:  # ty: ignore[incompatible-method-override]
        """Launch the page, as `gradio.Blocks.launch` does. Options replace the page's own."""
        guard = Middleware(PageGuard, max_bytes=round(self._max_mb * 1e6))
        script = (_ASSETS / "page.js").read_text(encoding="utf-8").replace("MAX_MB", f"{self._max_mb:g}")
        own: dict[str, Any] = {
            "theme": _theme(),
            "css": (_ASSETS / "page.css").read_text(encoding="utf-8"),
            "head": f"<script>{script}</script>",
            "footer_links": [],
            "max_file_size": round(self._max_mb * 1e6),
            "app_kwargs": {"middleware": [guard]},
            "ssr_mode": False,
            "share": False,
            "enable_monitoring": False,
            "mcp_server": False,
            "run_history": False,
        }
        return super().launch(**{**own, **options})

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *positional: Any, **options: Any) -> list[Any]:
        """Refuse files of any size that Gradio would download from other machines. Called by Gradio."""
        gradio_client.utils.traverse(inputs, _refuse_address, _is_file_elsewhere)
        return await super().preprocess_data(block_fn, inputs, *positional, **options)

    def close(self, verbose: bool = True) -> None:
        """Close the page. Uploads and examples are deleted."""
        super().close(verbose)
        self._examples.cleanup()

    def _build(self, settings: Settings, limits: str) -> None:
        gr.HTML(intro_html(list(self._scorers)))
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                audio = gr.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label=f"Recording. {limits}",
                    buttons=[],
                    waveform_options=gr.WaveformOptions(waveform_color="#64748b", waveform_progress_color="#1d4ed8"),
                    elem_id="recording",
                )
                self._add_examples(audio)
                with gr.Row():
                    check = gr.Button("Check the recording", variant="primary", scale=3, min_width=200)
                    cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
                choices = self._add_settings(settings)
                gr.HTML(credits_html(CREDITS))
            with gr.Column(scale=3, min_width=320):
                outputs = self._add_outputs() if len(self._scorers) == 1 else None
                gr.HTML(models_html(self._scorers, self._cards), elem_id="models")
        # Several verdicts stand side by side, over the whole width.
        status, progress, results = outputs or self._add_outputs()
        judged = gr.State(None)
        shown = [status, progress, results, cancel, judged]
        at_once: dict[str, Any] = {"queue": False, **_QUIET}
        settings_changed: dict[str, Any] = {
            "inputs": [judged, *choices],
            "outputs": [status, results],
            **at_once,
        }
        only_of_recording = (_ASSETS / "only_of_recording.js").read_text(encoding="utf-8")
        gr.on(  # before the server's answer to a change of the recording, for which later listeners wait
            [audio.change, status.change, results.change],
            None,
            [audio, status, results],
            [status, results],
            js=only_of_recording.replace("IDLE", json.dumps(self._actions.idle())),
            **at_once,
        )
        begin = check.click(self._begin, audio, shown, trigger_mode="once", **at_once)
        # "multiple", because the visitor may ask for another recording while the one before it is still in the queue.
        checked = begin.then(
            self._check, [audio, *choices], shown, concurrency_limit=1, trigger_mode="multiple", **_QUIET
        )
        checked.success(self._decide_again, **settings_changed)  # perhaps they have, meanwhile
        checked.failure(self._not_checked, None, shown, **at_once)
        cancel.click(self._cancel, None, [status, cancel], **at_once)
        audio.change(self._choose, audio, shown, **at_once)
        changes = [choice.change for choice in choices]
        gr.on(changes, self._change_settings, trigger_mode="always_last", **settings_changed)

    def _add_outputs(self) -> tuple[gr.HTML, gr.HTML, gr.HTML]:
        # `page.js` makes the first a live region, which screen readers read out.
        status = gr.HTML(self._actions.idle(), elem_id="status")
        return status, gr.HTML(elem_id="progress"), gr.HTML(elem_id="results")

    def _add_examples(self, audio: gr.Audio) -> None:
        gr.HTML("<p>Or take an example:</p>", elem_id="examples")
        with gr.Row():
            for example in write_examples(self._examples.name):
                button = gr.Button(example.label, size="sm", min_width=100)
                button.click(partial(str, example.path), None, audio, queue=False, **_QUIET)

    def _add_settings(self, settings: Settings) -> list[Any]:
        are_used = any(scorer.calibration is not None for scorer in self._scorers.values())
        with gr.Accordion("Prior, costs and the undecided band", open=False):
            if not are_used:
                gr.HTML("<p>These settings need a calibrated model. They change nothing here.</p>", padding=True)
            return [
                gr.Slider(
                    0.1,
                    99.9,
                    100 * settings.costs.p_spoof,
                    step=0.1,
                    label="Fakes in 100 recordings",
                    info="How common fakes are where your recordings come from.",
                    interactive=are_used,
                ),
                gr.Number(
                    settings.costs.c_fa,
                    label="Cost of letting a fake pass",
                    interactive=are_used,
                ),
                gr.Number(
                    settings.costs.c_miss,
                    label="Cost of flagging genuine speech",
                    interactive=are_used,
                ),
                gr.Slider(
                    0,
                    10,
                    settings.undecided_band,
                    step=0.1,
                    label="Undecided within",
                    info="No verdict if the log-likelihood ratio is this close to the threshold.",
                    interactive=are_used,
                ),
            ]

    def _check(self, request: gr.Request, path: str | None, *choices: float | None) -> Iterator[Any]:
        for shown in self._actions.check(path, str(request.session_hash), Choices(*choices)):
            yield gr.skip() if shown is None else _updates(shown)

    def _begin(self, request: gr.Request, path: str | None) -> list[Any]:
        return _updates(self._actions.begin(path, str(request.session_hash)))

    def _cancel(self, request: gr.Request) -> list[Any]:
        status, _, _, cancel, _ = _updates(self._actions.cancel(str(request.session_hash)))
        return [status, cancel]

    def _not_checked(self, request: gr.Request) -> list[Any]:
        self._cancel(request)
        return _updates(self._actions.not_checked())

    def _choose(self, request: gr.Request, path: str | None) -> Any:
        shown = self._actions.choose(path, str(request.session_hash))
        return gr.skip() if shown is None else _updates(shown)

    def _decide_again(self, judged: Judged | None, *choices: float | None) -> list[Any]:
        status, _, results, _, _ = _updates(self._actions.decide_again(judged, Choices(*choices)))
        return [status, results]

    def _change_settings(self, request: gr.Request, judged: Judged | None, *choices: float | None) -> list[Any]:
        shown = self._actions.change_settings(judged, str(request.session_hash), Choices(*choices))
        status, _, results, _, _ = _updates(shown)
        return [status, results]


def make_demo(
    models: Sequence[str | os.PathLike[str]] | Mapping[str, SpoofScorer],
    *,
    max_mb: float = 50,
    max_minutes: float = 30,
    p_spoof: float = 0.05,
    c_miss: float = 1.0,
    c_fa: float = 10.0,
    undecided_band: float = 0.0,
    **scorer_options: Any,
) -> DemoPage:
    """Make the page that judges recordings with one or several models.

        make_demo(["runs/my-run"]).launch()

    It listens on 127.0.0.1 only and works without a network. Uploads are kept in a temporary folder for up to
    15 minutes. The folder is removed when the page is closed or the process ends.

    Args:
        models: Names or folders of models, as for `SpoofScorer`, or scorers by display name.
        max_mb: The largest upload, in megabytes.
        max_minutes: The longest recording.
        p_spoof: The initial prior probability of spoofed recordings, in (0, 1).
        c_miss: The initial cost of rejecting bona fide speech.
        c_fa: The initial cost of accepting spoofed speech.
        undecided_band: The initial distance from the threshold, in nats of the LLR, within which the verdict is
            "undecided".
        scorer_options: Options of `SpoofScorer` for models by name, such as `device` and `trust_remote_code`.

    Returns:
        The page, a `gradio.Blocks`. Its `launch` takes the options of `gradio.Blocks.launch`.

    Raises:
        ImportError: If Gradio is not installed.
        OSError: If there is no such model.
        ValueError: If there is no model, a model is passed twice, a model cannot be used, or a limit is not positive.
    """
    check_limits(max_mb=max_mb, max_minutes=max_minutes)
    settings = Settings(DetectionCosts(p_spoof, c_miss, c_fa), undecided_band)
    if not models:
        raise ValueError("the page needs at least one model")
    if isinstance(models, Mapping):
        scorers, cards = dict(models), {name: ModelCard() for name in models}
    else:
        names = [os.fspath(model) for model in models]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{twice[0]} is given twice")
        scorers = {name: SpoofScorer(name, **scorer_options) for name in names}
        of_hub = {key: value for key, value in scorer_options.items() if key in HUB_OPTIONS}
        cards = {name: read_card(name, of_hub) for name in names}
    return DemoPage(scorers, cards, settings, max_mb=max_mb, max_minutes=max_minutes)


def serve(
    models: Sequence[str | os.PathLike[str]],
    *,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    **options: Any,
) -> None:
    """Run the page until Ctrl-C, SIGTERM, or the end of its terminal. Then its uploads are deleted.

    Args:
        models: Names or folders of models.
        host: Address to listen on. None for 127.0.0.1, or the address that a Space sets.
        port: Port to listen on. None for the first free one from 7860 on, or the port that a Space sets.
        share: Whether to make a public link through Gradio's servers.
        options: Options of `make_demo`.

    Raises:
        OSError: If the port is taken, or there is no such model.
        ValueError: If there is no such port; as for `make_demo`.
    """
    if port is not None and not 1 <= port <= _HIGHEST_PORT:
        raise ValueError(f"port must be from 1 to {_HIGHEST_PORT}, not {port}")
    page = make_demo(models, **options)
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        leave_closed_terminal(number)
        stopped.set()

    before = {number: signal.signal(number, stop) for number in ending_signals()}
    try:
        try:
            page.launch(server_name=host, server_port=port, share=share, prevent_thread_lock=True, quiet=True)
        except OSError as error:
            if port is None or "port" not in str(error):
                raise
            raise OSError(f"port {port} cannot be used, perhaps because something else does: choose another") from error
        print(f"The page is at {page.local_url} (Ctrl-C stops it)", flush=True)  # noqa: T201
        stopped.wait()
    finally:
        page.close(verbose=False)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_file_elsewhere(value: object) -> bool:
    return isinstance(value, dict) and gradio_client.utils.is_http_url_like(value.get("path"))


def _refuse_address(file: Mapping[str, Any]) -> None:
    raise gr.Error("This page loads nothing from other machines. Upload the recording instead.")


def _updates(shown: Shown) -> list[Any]:
    """Return the values of the status, the progress, the results, the cancel button, and the state."""
    return [
        gr.skip() if shown.status is None else shown.status,
        shown.progress,
        gr.skip() if shown.results is None else shown.results,
        gr.update(interactive=shown.is_running),
        shown.judged,
    ]


def _theme() -> gr.themes.Base:
    """Return a theme with the system's fonts, and enough contrast for small text."""
    theme = gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
    )
