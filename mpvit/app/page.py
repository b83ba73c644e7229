"""The page: what lies where, and what happens on a click."""

import functools
import html
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from mpvit.app.actions import KEPT_SECONDS, Actions
from mpvit.app.detectors import LOWEST_SCORE
from mpvit.app.results import Filter, Result, found_labels, picture_html, table_html
from mpvit.errors import UserError

_THRESHOLD = 0.3  # at first
_CLEANING = 600  # seconds between the deletions of old uploads
_TITLE = '# MPViT-DETR\nObjects in a picture, and where the detector looks for them.'
_EMPTY = '<p class="empty">Choose a picture: what the detector finds in it is shown here.</p>'
_log = logging.getLogger(__name__)


def told(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose errors are shown in the page: mistakes as they are, others in general."""

    @functools.wraps(handler)
    def wrapped(*arguments: Any) -> Any:
        try:
            return handler(*arguments)
        except UserError as error:
            message = str(error)
        except Exception:
            _log.exception('a request to the page failed')
            message = 'Something went wrong; the terminal that serves this page says what.'
        # as HTML, until it is closed; an error of Gradio's would also mark everything on the page
        gr.Warning(html.escape(message), duration=None)
        return gr.skip()

    return wrapped


class Page:
    """The components and what each event calls: values of components in, updates out.

    Attributes:
        blocks: The page, to be launched.
    """

    def __init__(self, actions: Actions, upload_mb: int) -> None:
        self.actions = actions
        self.blocks = gr.Blocks(
            title='MPViT-DETR',
            fill_width=True,
            analytics_enabled=False,
            delete_cache=(_CLEANING, KEPT_SECONDS),
        )
        with self.blocks:
            gr.Markdown(_TITLE)
            with gr.Row():
                with gr.Column(scale=2, min_width=280):
                    self._lay_out_inputs(upload_mb)
                with gr.Column(scale=5, min_width=280):
                    self._lay_out_results()
            self._connect()
        self.blocks.queue(max_size=64, api_open=False)

    def _lay_out_inputs(self, upload_mb: int) -> None:
        self.upload = gr.File(
            label=f'Picture of yours, up to {upload_mb} MB',
            file_types=['image'],
            height=150,
            elem_id='upload',
        )
        self.examples = gr.Gallery(
            [(small, path.name) for path, small in self.actions.examples],
            label='Or one of these',
            visible=bool(self.actions.examples),
            columns=3,
            height=310,
            object_fit='cover',
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id='examples',
        )
        names = list(self.actions.detectors.sources)
        self.source = gr.Dropdown(names, value=names[0], label='Checkpoint', elem_id='source')

    def _lay_out_results(self) -> None:
        """The right side; its sliders count layers from 1."""
        script = Path(__file__).with_name('select.js').read_text()
        view: dict[str, Any] = dict(js_on_load=script, apply_default_css=False)
        slider: dict[str, Any] = dict(min_width=240)
        self.picture = gr.HTML(_EMPTY, elem_id='picture', **view)
        with gr.Row():
            self.threshold = gr.Slider(
                *(LOWEST_SCORE, 1, _THRESHOLD),
                step=0.01,
                label='Lowest score',
                elem_id='threshold',
                **slider,
            )
            self.layer = gr.Slider(
                *(1, 6, 6), step=1, label='Decoder layer', visible=False, elem_id='layer', **slider
            )
        self.labels = gr.CheckboxGroup(
            label='Classes', visible=False, interactive=True, elem_id='classes'
        )
        self.table = gr.HTML('', elem_id='table', **view)
        self.result = gr.State(None)

    def _connect(self) -> None:
        """Detectors run one at a time, in the order of the clicks; filters do not wait for them."""
        setting = [self.source, self.threshold]
        filters = [self.result, self.threshold, self.labels]
        looking = [*filters, self.layer]
        views = [self.picture, self.table]
        everything = [self.result, self.layer, self.labels, *views]
        private: dict[str, Any] = dict(api_visibility='private')
        latest: dict[str, Any] = dict(private, trigger_mode='always_last')
        detector: dict[str, Any] = dict(
            private,
            concurrency_id='detector',
            concurrency_limit=1,
            show_progress_on=self.picture,
        )
        uploaded = self.upload.upload(
            self.on_upload, [self.upload, *setting], [*everything, self.examples], **detector
        )
        # ready for the next file, also after one that was refused
        uploaded.then(lambda: None, outputs=self.upload, queue=False, **private)
        self.examples.select(self.on_example, setting, everything, **detector)
        self.source.input(self.on_source, [self.result, *setting], everything, **detector)
        for view in views:
            view.select(self.on_select, looking, [self.result, *views], **detector)
        self.layer.input(self.on_layer, looking, [self.result, *views], **{**detector, **latest})
        for control in (self.threshold, self.labels):
            control.input(
                self.on_filter, filters, views, queue=False, show_progress='hidden', **latest
            )

    @told
    def on_upload(self, path: str, source: str, threshold: float) -> Any:
        """A file came."""
        return (*self._new(path, source, threshold), gr.Gallery(selected_index=None))

    @told
    def on_example(self, source: str, threshold: float, event: gr.EventData) -> Any:
        """A picture that is offered was chosen."""
        return self._new(self.actions.example(event.index), source, threshold)

    @told
    def on_source(self, result: Result | None, source: str, threshold: float) -> Any:
        """Another detector was chosen."""
        return gr.skip() if result is None else self._new(result.path, source, threshold)

    @told
    def on_filter(self, result: Result | None, threshold: float, labels: list[int]) -> Any:
        """The threshold moved or a class was switched."""
        return gr.skip() if result is None else _views(result, threshold, labels)

    @told
    def on_select(
        self,
        result: Result | None,
        threshold: float,
        labels: list[int],
        layer: int,
        event: gr.EventData,
    ) -> Any:
        """A detection was clicked, perhaps the one that is looked at already."""
        if result is None:
            return gr.skip()
        detection = None if event.detection == result.selected else event.detection
        result = self.actions.select(result, detection, int(layer) - 1)
        return result, *_views(result, threshold, labels)

    @told
    def on_layer(
        self, result: Result | None, threshold: float, labels: list[int], layer: int
    ) -> Any:
        """Another decoder layer was chosen."""
        if result is None:
            return gr.skip()
        result = self.actions.select(result, result.selected, int(layer) - 1)
        return result, *_views(result, threshold, labels)

    def _new(self, path: str, source: str, threshold: float) -> tuple[Any, ...]:
        """Result, layer, classes and views of a picture that is to be looked at."""
        result = self.actions.detect(path, source)
        labels = found_labels(result.detections)
        names = [(result.detections.classes[label], label) for label in labels]
        several = result.layers > 1
        last = result.layers if several else 2
        return (
            result,
            gr.Slider(maximum=last, value=result.layers, visible=several),
            gr.CheckboxGroup(names, value=labels, visible=bool(labels)),
            *_views(result, threshold, labels),
        )


def _views(result: Result, threshold: float, labels: Sequence[int]) -> tuple[str, str]:
    shown = Filter(threshold, labels)
    return picture_html(result, shown), table_html(result, shown)
