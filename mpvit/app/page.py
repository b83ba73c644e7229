"""The page: what lies where, and what happens on a click."""

import functools
import html
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from mpvit.app.actions import KEPT_SECONDS, Actions
from mpvit.app.detectors import LOWEST_SCORE
from mpvit.app.results import Filter, Result, found_labels, picture_html, table_html
from mpvit.errors import UserError

_THRESHOLD = 0.3  # at first
_CLEANING = 600  # seconds between the deletions of old uploads
_EMPTY = '<p class="empty">Choose a picture: what the detector finds in it is shown here.</p>'
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Parts:
    """The components of the page that something happens to."""

    upload: gr.File
    examples: gr.Gallery
    source: gr.Dropdown
    picture: gr.HTML
    threshold: gr.Slider
    layer: gr.Slider
    labels: gr.CheckboxGroup
    table: gr.HTML
    result: gr.State


def build_page(actions: Actions, upload_mb: int) -> gr.Blocks:
    """Lay the page out and connect it.

    Args:
        actions: What it does.
        upload_mb: Size of the largest upload in MB, which the page tells.
    """
    cleaning = (_CLEANING, KEPT_SECONDS)
    page = gr.Blocks(
        title='MPViT-DETR', fill_width=True, analytics_enabled=False, delete_cache=cleaning
    )
    with page:
        gr.Markdown('# MPViT-DETR\nObjects in a picture, and where the detector looks for them.')
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                inputs = _inputs(actions, upload_mb)
            with gr.Column(scale=5, min_width=280):
                parts = _Parts(*inputs, *_outputs())
        _connect(parts, _Events(actions))
    page.queue(max_size=64, api_open=False)
    return page


def _inputs(actions: Actions, upload_mb: int) -> tuple[gr.File, gr.Gallery, gr.Dropdown]:
    upload = gr.File(
        label=f'Picture of yours, up to {upload_mb} MB',
        file_types=['image'],
        height=150,
        elem_id='upload',
    )
    examples = gr.Gallery(
        [(small, path.name) for path, small in actions.examples],
        label='Or one of these',
        visible=bool(actions.examples),
        columns=3,
        height=310,
        object_fit='cover',
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id='examples',
    )
    names = list(actions.detectors.sources)
    source = gr.Dropdown(names, value=names[0], label='Checkpoint', elem_id='source')
    return upload, examples, source


def _outputs() -> tuple[Any, ...]:
    """The right side; its sliders count layers from 1."""
    script = Path(__file__).with_name('select.js').read_text()
    view: dict[str, Any] = dict(js_on_load=script, apply_default_css=False)
    picture = gr.HTML(_EMPTY, elem_id='picture', **view)
    with gr.Row():
        threshold = gr.Slider(
            *(LOWEST_SCORE, 1, _THRESHOLD),
            step=0.01,
            label='Lowest score',
            min_width=240,
            elem_id='threshold',
        )
        layer = gr.Slider(
            *(1, 6, 6), step=1, label='Decoder layer', visible=False, min_width=240, elem_id='layer'
        )
    labels = gr.CheckboxGroup(label='Classes', visible=False, interactive=True, elem_id='classes')
    table = gr.HTML('', elem_id='table', **view)
    return picture, threshold, layer, labels, table, gr.State(None)


def told(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose errors are shown in the page: mistakes as they are, others without details.

    Args:
        handler: What an event calls.
    """

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


class _Events:
    """What each event calls: values of components in, updates of components out."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions

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
        return (
            result,
            gr.Slider(
                maximum=result.layers if several else 2, value=result.layers, visible=several
            ),
            gr.CheckboxGroup(names, value=labels, visible=bool(labels)),
            *_views(result, threshold, labels),
        )


def _views(result: Result, threshold: float, labels: Sequence[int]) -> tuple[str, str]:
    shown = Filter(threshold, labels)
    return picture_html(result, shown), table_html(result, shown)


def _connect(parts: _Parts, events: _Events) -> None:
    """Detectors run one at a time, in the order of the clicks; filters do not wait for them."""
    setting = [parts.source, parts.threshold]
    filters = [parts.result, parts.threshold, parts.labels]
    views = [parts.picture, parts.table]
    everything = [parts.result, parts.layer, parts.labels, *views]
    detector: dict[str, Any] = dict(
        concurrency_id='detector',
        concurrency_limit=1,
        api_visibility='private',
        show_progress_on=parts.picture,
    )
    latest: dict[str, Any] = dict(trigger_mode='always_last', api_visibility='private')
    uploaded = parts.upload.upload(
        events.on_upload, [parts.upload, *setting], [*everything, parts.examples], **detector
    )
    uploaded.then(  # ready for the next file, also after one that was refused
        lambda: None, outputs=parts.upload, queue=False, api_visibility='private'
    )
    parts.examples.select(events.on_example, setting, everything, **detector)
    parts.source.input(events.on_source, [parts.result, *setting], everything, **detector)
    looking = [*filters, parts.layer]
    for view in views:
        view.select(events.on_select, looking, [parts.result, *views], **detector)
    parts.layer.input(events.on_layer, looking, [parts.result, *views], **{**detector, **latest})
    for control in (parts.threshold, parts.labels):
        control.input(
            events.on_filter, filters, views, queue=False, show_progress='hidden', **latest
        )
