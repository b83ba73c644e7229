"""Charts of what a detector finds and what it gets wrong."""

import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpvit.datasets.annotations import SIZE_LIMITS
from mpvit.datasets.palette import CLASSES, class_colour
from mpvit.evaluation.analysis import Analysis
from mpvit.visualization.style import new_figure, note, saying, shortened, styled

_RECALLS = np.linspace(0, 1, 101)
_FEW = 7  # classes that each get a colour in one chart
_ROWS = 40  # bars in a column
_CELLS = 40  # classes in a confusion matrix
_NUMBERED = 14  # up to so many the cells say their numbers
#: What the kinds of errors are called in pictures.
ERROR_NAMES = {
    'class': 'wrong class',
    'location': 'badly located',
    'both': 'both of these',
    'duplicate': 'duplicate',
    'background': 'background',
    'missed': 'missed object',
}


@styled
def precision_recall(analysis: Analysis) -> Figure:
    """Precision by recall: the mean over classes at several IoU, and each class at 0.5."""
    figure = new_figure(11.5, 4.2)
    left, right = figure.subplots(1, 2, sharey=True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # where there are no objects
        mean = np.nanmean(analysis.precision, axis=2)  # (10, 101)
    for label, curve in (('0.5', mean[0]), ('0.75', mean[5]), ('0.5 to 0.95', mean.mean(0))):
        left.plot(_RECALLS, curve, label=f'IoU {label}: AP {curve.mean():.3f}', lw=1.8)
    left.set(title='Mean over classes', ylabel='precision')
    _draw_classes(right, analysis)
    for axes in (left, right):
        axes.set(xlabel='recall', xlim=(0, 1), ylim=(0, 1.02))
        if np.isnan(mean).all():
            note(axes, 'there are no objects')
        elif axes is left:
            axes.legend(loc='lower left')
        else:
            axes.legend(loc='upper left', bbox_to_anchor=(1, 1), title='AP50', alignment='left')
    return figure


def _draw_classes(axes: Axes, analysis: Analysis) -> None:
    """Of many classes all in grey, and the best and the worst three in colour."""
    curves, ap50 = analysis.precision[0], analysis.class_ap[:, 1]
    known = [label for label in np.argsort(-ap50) if not np.isnan(ap50[label])]
    coloured = known
    axes.set_title('Classes at IoU 0.5')
    if len(known) > _FEW:
        axes.plot(_RECALLS, curves[:, known], color='0.6', lw=0.6, alpha=0.6)
        coloured = [*known[:3], *known[-3:]]
        axes.set_title(f'{len(known)} classes at IoU 0.5: the best and the worst three')
    for place, label in enumerate(coloured):
        colour = class_colour(label) if len(known) <= _FEW else CLASSES[place]
        text = f'{ap50[label]:.3f}  {shortened(analysis.results.names[label])}'
        axes.plot(_RECALLS, curves[:, label], color=colour, label=text, lw=1.5)


@styled
def ap_per_class(analysis: Analysis) -> Figure:
    """A bar for the AP of each class, the best on top, with a dot for its AP50."""
    order, title = _classes_shown(analysis)
    columns = [order] if len(order) <= _ROWS else np.array_split(order, 2)
    rows = max(len(column) for column in columns)
    figure = new_figure(10 if len(columns) > 1 else 7.5, 1.5 + 0.23 * max(rows, 2))
    grid = figure.subplots(1, len(columns), squeeze=False)[0]
    figure.suptitle(title, fontsize=11, fontweight='bold')
    for axes, column in zip(grid, columns, strict=True):
        _draw_bars(axes, analysis, column)
    if not len(order):
        note(grid[0], 'there are no objects')
    return figure


def _classes_shown(analysis: Analysis) -> tuple[np.ndarray, str]:
    ap = analysis.class_ap[:, 0]
    order = np.argsort(-ap, kind='stable')
    order = order[~np.isnan(ap[order])]
    title = 'AP of the classes (bar) and AP50 (dot)'
    if len(order) > 2 * _ROWS:
        title += f': the best and the worst {_ROWS} of {len(order)}'
        order = np.concatenate([order[:_ROWS], order[-_ROWS:]])
    return order, title


def _draw_bars(axes: Axes, analysis: Analysis, column: np.ndarray) -> None:
    places = np.arange(len(column))
    values = analysis.class_ap[column]
    axes.barh(places, values[:, 0], color=[class_colour(label) for label in column], height=0.7)
    axes.plot(values[:, 1], places, ls='', marker='o', ms=4, color='0.5')
    for place, value in enumerate(values[:, 0]):
        axes.text(1.02, place, f'{value:.3f}', va='center', fontsize=9)
    names = [shortened(analysis.results.names[label]) for label in column]
    axes.set(xlim=(0, 1), ylim=(len(column) - 0.4, -0.6), yticks=places, yticklabels=names)
    axes.grid(axis='y', visible=False)
    axes.tick_params(axis='y', length=0)


@styled
def ap_by_size(analysis: Analysis) -> Figure:
    """AP and AR of small, medium and large objects."""
    figure = new_figure(5.6, 3.4)
    axes = figure.subplots()
    objects = analysis.results.objects
    area = objects.area[~objects.crowd]
    counts = np.histogram(area, [0, *SIZE_LIMITS, np.inf])[0]
    for shift, (kind, label) in enumerate((('AP', 'AP'), ('AR', 'AR at 100 detections'))):
        values = np.nan_to_num([analysis.stats[f'{kind}{size}'] for size in 'sml'])
        bars = axes.bar(np.arange(3) + (shift - 0.5) * 0.38, values, 0.36, label=label)
        texts = np.where(counts > 0, [f'{value:.3f}' for value in values], '–')
        axes.bar_label(bars, texts, padding=2, fontsize=9)
    names = ('small\nup to 32² px', 'medium\nup to 96² px', 'large\nabove')
    ticks = [f'{name}\n{count:,} objects' for name, count in zip(names, counts, strict=True)]
    axes.set(title='AP and AR by size of the object', ylim=(0, 1.08), xlim=(-0.6, 2.6))
    axes.set_xticks(np.arange(3), ticks)
    axes.grid(axis='x', visible=False)
    axes.legend(loc='upper left', bbox_to_anchor=(1, 1))
    return figure


@styled
def error_chart(analysis: Analysis) -> Figure:
    """What each kind of error costs, and how often it happens."""
    figure = new_figure(10, 3.4)
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    gains = list(analysis.error_gains.values())
    _error_bars(left, gains, ['–' if np.isnan(g) else f'{100 * g:.1f}' for g in gains])
    left.set_title('AP50 points gained if put right')
    counts = list(analysis.error_counts().values())
    _error_bars(right, counts, [f'{count:,}' for count in counts])
    right.set_title(f'How many from a score of {analysis.threshold:g} on')
    return figure


def _error_bars(axes: Axes, values: Sequence[float], texts: Sequence[str]) -> None:
    """A bar for each kind of error and, if there are more values, for all of two sorts."""
    names = [*ERROR_NAMES.values(), 'all false positives', 'all objects not found'][: len(values)]
    places = [*range(6), 6.6, 7.6][: len(values)]
    colours = [*[CLASSES[0]] * 6, *[CLASSES[4]] * 2][: len(values)]
    lengths = np.nan_to_num(np.asarray(values, float))
    saying(axes, axes.barh(places, lengths, color=colours, height=0.7), texts)
    axes.set_yticks(places, names)
    axes.set(ylim=(places[-1] + 0.6, -0.6), xlim=(0, max(lengths.max() * 1.15, 1e-3)))


@styled
def threshold_chart(analysis: Analysis) -> Figure:
    """Precision, recall and F1 by the score from which a detection counts."""
    figure = new_figure(5.6, 3.4)
    axes = figure.subplots()
    axes.set_title('Which threshold? All classes, IoU 0.5')
    if not len(analysis.sweep):
        note(axes, 'there are no detections')
        return figure
    for column, label in enumerate(('precision', 'recall', 'F1'), start=1):
        axes.plot(analysis.sweep[:, 0], analysis.sweep[:, column], label=label, lw=1.6)
    for value, label, style in (
        (analysis.threshold, 'as shown', ':'),
        (analysis.best_threshold, 'best F1', '--'),
    ):
        axes.axvline(value, color='0.5', ls=style, lw=1.2, label=f'{label}: {value:.2f}')
    axes.set(xlabel='score', xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc='upper left', bbox_to_anchor=(1, 1))
    return figure


@styled
def confusion_matrix(analysis: Analysis) -> Figure:
    """Which class was taken for which: shares of each true class, with the background."""
    counts, names, rest = _cells(analysis)
    size = len(counts)
    figure = new_figure(*(2 * [max(4.6, 2.2 + 0.42 * size if size <= 16 else 3.2 + 0.15 * size)]))
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    colour = np.array(matplotlib.colors.to_rgb(CLASSES[0]))
    cells = np.concatenate([np.broadcast_to(colour, (size, size, 3)), share[..., None]], 2)
    axes.imshow(cells, interpolation='none')  # the colour's opacity is the share: fits any page
    if size <= _NUMBERED + 1:
        for row, column in np.argwhere(counts):
            text, ink = f'{counts[row, column]:,}', 'white' if share[row, column] > 0.5 else None
            axes.text(column, row, text, color=ink, ha='center', va='center', fontsize=8)
    small = 9 if size <= 16 else 7
    axes.set_xticks(range(size), names, rotation=90, fontsize=small)
    axes.set_yticks(range(size), names, fontsize=small)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.axhline(size - 1.5, color='0.5', lw=0.8)
    axes.axvline(size - 1.5, color='0.5', lw=0.8)
    title = f'IoU 0.5, score {analysis.threshold:g} or more{rest}'
    axes.set(title=title, xlabel='detected as', ylabel='true class')
    return figure


def _cells(analysis: Analysis) -> tuple[np.ndarray, list[str], str]:
    """The matrix, of many classes that of those that are confused most."""
    counts, names = analysis.confusion, [*map(shortened, analysis.results.names), 'background']
    if len(names) - 1 <= 2 * _CELLS:
        return counts, names, ''
    wrong = counts[:-1, :-1] - np.diag(np.diag(counts)[:-1])
    most = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind='stable')[:_CELLS])
    keep = np.append(most, len(names) - 1)
    rest = f';\nthe {_CELLS} of {len(names) - 1} classes that are confused most'
    return counts[np.ix_(keep, keep)], [names[index] for index in keep], rest


#: The charts of an analysis by the name of their files, each with what it shows.
CHARTS = {
    'precision_recall': (precision_recall, 'Curves of precision by recall'),
    'ap_per_class': (ap_per_class, 'Bars: AP of each class'),
    'ap_by_size': (ap_by_size, 'Bars: AP and AR of small, medium and large objects'),
    'error_types': (error_chart, 'Bars: AP50 lost to each kind of error, and how many there are'),
    'threshold': (threshold_chart, 'Curves of precision, recall and F1 by score'),
    'confusion_matrix': (confusion_matrix, 'Confusion matrix with background'),
}
