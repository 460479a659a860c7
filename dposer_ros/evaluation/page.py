"""report.html: one file with the figures, plots and pictures of an evaluated bag."""

import base64
import html
import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from dposer_core.state import Source
from dposer_ros.evaluation import pictures, plots
from dposer_ros.evaluation.accuracy import best_median_worst
from dposer_ros.evaluation.evaluate import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 110


def page(found: Findings) -> str:
    """The page as text."""
    title = _text(found.title)
    sections = (
        _summary(found),
        _people(found),
        _section('Best, median and worst frame', _pictures(found)),
        _section('Where people went', _plot(plots.pelvis_track, found.run, found.accuracy)),
        _section('How joints were obtained', _plot(plots.provenance, found.run)),
        _section('Error', _plot(plots.errors, found.run, found.accuracy), _errors(found)),
        _calibration(found),
        _section('Hidden hands', _hands(found.metrics['hidden_hands'])),
        _section('Events', _plot(plots.events, found.run)),
        _section('Latency', _plot(plots.latency, found.run), _latency(found.latency)),
        _section('What was refused', _refused(found.metrics)),
        _comparison(found),
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f'<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>'
        f'{"".join(sections)}</body></html>\n'
    )


# --- sections ------------------------------------------------------------------------------------


def _summary(found: Findings) -> str:
    metrics, others = found.metrics, found.other_metrics
    rows = [('', 'this run', 'other run')] if others is not None else []
    for name, read in _SUMMARY.items():
        values = [_read(read, m) for m in (metrics, others) if m is not None]
        if any(value != '-' for value in values):
            rows.append((name, *values))
    return f'<p>{_text(metrics["model"])}</p>{_table(rows, has_head=others is not None)}'


def _people(found: Findings) -> str:
    if found.accuracy is None:
        return ''
    truth = found.metrics['truth']
    rows = [('person', 'frames', 'with a state', 'fitted', 'longest gap', 'body ids')]
    for name, person in truth['people'].items():
        rows.append((
            name, person['frames'], person['matched'], person['fitted'],
            f'{person["longest_gap_s"]:.2f} s', ', '.join(person['body_ids']),
        ))  # fmt: skip
    swaps = ''.join(
        f'<li class="bad">{(s["stamp_ns"] - found.run.stamps[0]) * 1e-9:.2f} s: '
        f'{_text(s["body_id"])} went from {_text(s["before"])} to {_text(s["after"])}</li>'
        for s in truth['swaps'][:50]
    )
    note = (
        f'<p>Truth: {_text(truth["source"])} ({_text(truth["points"])}). Id swaps: '
        f'{truth["id_swaps"]}, fresh ids of known people: {truth["new_ids"]}, states of nobody: '
        f'{truth["unmatched_states"]}.</p>'
    )
    return _section('People', note, _table(rows), f'<ul>{swaps}</ul>' if swaps else '')


def _pictures(found: Findings) -> str:
    run = found.run
    if found.accuracy is None:
        errors, unit = plots.residuals(run)
        what = 'residual of the fit'
    else:
        errors, unit, what = found.accuracy.mean_mm(), 'mm', 'error about the pelvis'
    figures = []
    for name, row in best_median_worst(errors, run.states).items():
        data = _data_uri(pictures.frame_picture(run, found.body, row), 'jpeg')
        seconds = (run.states.stamp_ns[row] - run.stamps[0]) * 1e-9
        text = f'{name}: {errors[row]:.1f} {unit} at {seconds:.2f} s, {run.states.body_id[row]}'
        figures.append(
            f'<figure><img alt="{_text(text)}" src="{data}"><figcaption>{_text(text)}'
            '</figcaption></figure>'
        )
    note = (
        f'<p class="small">By the {what}; left as the camera sees it, right from the side; '
        'colours as below.</p>'
    )
    return f'{note}<div class="pictures">{"".join(figures)}</div>'


def _errors(found: Findings) -> str:
    if found.accuracy is None:
        return ''
    truth = found.metrics['truth']
    kinds = ('pelvis_aligned', 'wrist_aligned', 'procrustes', 'absolute')
    rows = [('mm', *(kind.replace('_', ' ') for kind in kinds))]
    for part, values in truth['error_mm'].items():
        rows.append((part, *(_number(values.get(kind), 1) for kind in kinds)))
    by_source = [('mm about the pelvis', 'body', 'hands', 'all')]
    for kind in Source:
        values = truth['by_source_mm'][kind.name.lower()]
        if any(value is not None for value in values.values()):
            cells = (_number(values[part], 1) for part in ('body', 'hands', 'all'))
            by_source.append((kind.name.lower(), *cells))
    return _table(rows) + _table(by_source)


def _calibration(found: Findings) -> str:
    if found.accuracy is None:
        return ''
    within = found.metrics['truth']['within_1_sigma']
    rows = [('within 1 sigma (normal: 68.3 %)', 'absolute', 'about the pelvis', 'coordinates')]
    for name, values in within['absolute'].items():
        if values is not None:
            aligned = within['pelvis_aligned'][name]
            rows.append((
                name.replace('_', ' '), _percent(values['share']), _percent(aligned['share']),
                values['count'],
            ))  # fmt: skip
    return _section(
        'Calibration of the sigmas', _plot(plots.calibration, found.accuracy), _table(rows)
    )


def _hands(hands: dict[str, Any]) -> str:
    if not hands['frames'] and not hands['occlusions']:
        return '<p>Both hands were seen all the time.</p>'
    jump = hands['jump_mm'] or {'median': None, 'max': None}
    sources = ', '.join(
        f'{name} {_percent(share)}' for name, share in hands['source'].items() if share
    )
    return _table([
        ('states with a hand that no keypoint shows', hands['frames']),
        ('published as', sources or '-'),
        ('of these not called seen', _percent(hands['source_right'])),
        ('hands with keypoints that were not trusted', hands['detected_but_not_trusted_frames']),
        ('error of occluded_for', _number(hands['occluded_for_error_s'], 3, ' s')),
        ('occlusions, returned', f'{hands["occlusions"]}, {hands["returned"]}'),
        ('longest', _number(hands['longest_s'], 2, ' s')),
        ('jump at the return, median', _number(jump['median'], 0, ' mm')),
        ('jump at the return, largest', _number(jump['max'], 0, ' mm')),
        ('joints that jump 50 mm at most or within their 95 % region',
         _percent(hands['jump_inside'])),
        ('frames until a hand that is back counts as seen, at most',
         _number(hands['frames_until_trusted'], 0)),
    ], has_head=False)  # fmt: skip


def _latency(latency: dict[str, float] | None) -> str:
    if latency is None:
        return ''
    text = ', '.join(f'{name} {value:.1f}' for name, value in latency.items())
    return f'<p>{_text(text)} ms per frame with people, on the machine that evaluated the bag.</p>'


def _refused(metrics: dict[str, Any]) -> str:
    rows: list[tuple[Any, ...]] = [('cause', 'count', 'first')]
    for group in ('refused', 'refused_outputs'):
        for cause, entry in metrics[group].items():
            rows.append((cause, entry['count'], entry['example']))
    return _table(rows) if len(rows) > 1 else '<p>Nothing.</p>'


def _comparison(found: Findings) -> str:
    comparison = found.comparison
    if comparison is None:
        return ''
    rows = [('mm', 'median', 'mean', 'p95')]
    for part, values in comparison['distance_mm'].items():
        if values is not None:
            rows.append((part, *(_number(values[k], 3) for k in ('median', 'mean', 'p95'))))
    same = ', '.join(
        f'{name}: {"same bytes" if equal else "different"}'
        for name, equal in comparison['identical'].items()
    )
    counts = comparison['states']
    note = (
        f'<p>Against {_text(comparison["other"])}: {counts["this"]} states here, '
        f'{counts["other"]} there, {comparison["matched"]} of the same person and time; '
        f'{_number(comparison["largest_mm"], 3)} mm at most. {_text(same)}</p>'
    )
    plot = _plot(plots.differences, found.run, found.against)
    return _section('Against the other run', note, plot, _table(rows))


# --- one figure of the summary, from the metrics of any run --------------------------------------

_SUMMARY: dict[str, Callable[[dict[str, Any]], str]] = {
    'frames, with people': lambda m: f'{m["frames"]}, {m["frames_with_people"]}',
    'states': lambda m: str(m['states']),
    'bodies': lambda m: ', '.join(m['bodies']),
    'frames with a fitted person': lambda m: _percent(m['coverage']),
    'error about the pelvis': lambda m: _number(
        m['truth']['error_mm']['all']['pelvis_aligned'], 1, ' mm'
    ),
    'error after alignment': lambda m: _number(
        m['truth']['error_mm']['all']['procrustes'], 1, ' mm'
    ),
    'pelvis, median distance': lambda m: _number(m['truth']['pelvis_m']['median'], 3, ' m'),
    'id swaps': lambda m: str(m['truth']['id_swaps']),
    'hidden hands within 1 sigma': lambda m: _percent(
        m['truth']['within_1_sigma']['absolute']['hidden_hands']['share']
    ),
    'jitter of the body, median': lambda m: _number(
        m['jitter_mm_s2']['body']['median'], 0, ' mm/s²'
    ),
    'jitter of the hands, median': lambda m: _number(
        m['jitter_mm_s2']['hands']['median'], 0, ' mm/s²'
    ),
    'joints seen, partly, completed': lambda m: ', '.join(
        _percent(m['provenance']['all'][kind]) for kind in ('observed', 'partial', 'completed')
    ),
    'reprojection, median rms': lambda m: _number(
        m['residual']['reprojection_px']['median'], 2, ' px'
    ),
    'residual, median rms': lambda m: _number(m['residual']['points_mm']['median'], 1, ' mm'),
    'refused': lambda m: str(sum(entry['count'] for entry in m['refused'].values())),
}


def _read(read: Callable[[dict[str, Any]], str], metrics: dict[str, Any]) -> str:
    try:
        return read(metrics)
    except (KeyError, TypeError, AttributeError, ValueError):  # not in this run's figures
        return '-'


# --- HTML ----------------------------------------------------------------------------------------


def _section(title: str, *parts: str) -> str:
    return f'<section><h2>{_text(title)}</h2>{"".join(parts)}</section>'


def _table(rows: Iterable[tuple[Any, ...]], has_head: bool = True) -> str:
    lines = []
    for number, row in enumerate(rows):
        tag = 'th' if has_head and number == 0 else 'td'
        lines.append('<tr>' + ''.join(f'<{tag}>{_text(str(v))}</{tag}>' for v in row) + '</tr>')
    return f'<table>{"".join(lines)}</table>'


def _plot(draw: Callable[..., 'Figure'], *args: Any) -> str:
    stream = io.BytesIO()
    draw(*args).savefig(stream, format='png', dpi=_DPI)
    words = (draw.__doc__ or '').splitlines()[0]
    return f'<img alt="{_text(words)}" src="{_data_uri(stream.getvalue(), "png")}">'


def _data_uri(data: bytes, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def _number(value: float | None, digits: int, unit: str = '') -> str:
    return '-' if value is None or not np.isfinite(value) else f'{value:,.{digits}f}{unit}'


def _percent(share: float | None) -> str:
    return '-' if share is None else f'{100.0 * share:.1f} %'


def _text(value: str) -> str:
    return html.escape(value)


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1180px;
  padding: 0 1em; color: #222; }
h2 { margin-top: 1.8em; border-top: 1px solid #ccc; padding-top: .7em; font-size: 1.2em; }
table { border-collapse: collapse; font-size: 13px; margin: .7em 2em .7em 0; display: inline-table;
  vertical-align: top; }
td, th { padding: .25em .7em; border-bottom: 1px solid #e4e4e4; text-align: right; }
td:first-child, th:first-child { text-align: left; }
td { overflow-wrap: anywhere; }
.small, figcaption { color: #666; font-size: 12px; }
.bad { color: #b00020; }
.pictures { display: flex; flex-wrap: wrap; gap: 12px; }
figure { margin: 0; flex: 1 1 360px; }
img { max-width: 100%; display: block; }
"""
