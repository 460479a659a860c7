"""Adds prepared sets to the arrays of a packed file: the one hook of `dposer data pack`.

Of prepared sets the packed file gets
`body_<set>`, `weight_<set>`, `repeats_<set>` and the same rows in `body`: training bodies;
`hand` single hands in right-hand form, `two_hands` left as it is | right, `face` jaw | expression,
`face_shape`, `wholebody` body | left | right | jaw | expression, missing faces being zero; each
with `<array>_source`, an index into `<array>_sources`; and `test_<array>` of the test splits.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np

from dposer_core.errors import ConfigError
from dposer_core.skeleton import MIRROR_SIGN
from training.data.amass import EXPRESSION_COLUMNS
from training.data.pose_batch import NO_HANDS, TEST, TRAIN
from training.data.prepare import PreparedMeta, read_arrays, read_meta
from training.data.registry import get_dataset

SHAPE_COLUMNS = 100  # of FLAME's betas, in `face_shape`
# Synthetic arrays that give way to real ones.
_REPLACED = ('hand', 'face')
# Sets of MICA train the shape alone; their expressions are neutral.
_SHAPE_ONLY = ('mica',)


def add_prepared(
    arrays: dict[str, np.ndarray], files: list[Path], official_hands: bool = False
) -> dict[str, np.ndarray]:
    """`arrays` of a packed file (or none) with the rows of prepared `files`.

    A synthetic `hand` or `face` gives way to real ones.

    Raises:
        ConfigError: hands of two conventions, a set twice, or one that cannot be trained on.
    """
    metas = [read_meta(path) for path in files]
    _check(metas, files, official_hands)
    rows: dict[str, list[np.ndarray]] = defaultdict(list)
    sources: dict[str, list[str]] = defaultdict(list)
    for path, meta in zip(files, metas, strict=True):
        content = read_arrays(path)
        for split, prefix in ((TRAIN, ''), (TEST, 'test_')):
            for name, values in _rows(meta, content, split).items():
                rows[prefix + name].append(values)
                sources[prefix + name].append(meta.dataset)
    result = {
        key: value for key, value in arrays.items() if key not in _REPLACED or key not in rows
    }
    num_tests = len(result.get('test_names', ()))
    result.setdefault('test_names', np.zeros(0, dtype='<U1'))
    for name, parts in rows.items():
        result[name] = np.concatenate(parts)
        if name.startswith('test_'):
            continue
        counts = [len(part) for part in parts]
        result[f'{name}_source'] = np.repeat(np.arange(len(parts), dtype=np.uint8), counts)
        result[f'{name}_sources'] = np.array(sources[name])
        if name == 'body':
            for source, body in zip(sources[name], parts, strict=True):
                result[f'body_{source}'] = body
                result[f'weight_{source}'] = np.ones(len(body), np.float32)
                result[f'repeats_{source}'] = np.zeros((len(body), num_tests), bool)
            result['body_weight'] = np.ones(len(result['body']), np.float32)
    return result


def _check(metas: list[PreparedMeta], files: list[Path], official_hands: bool) -> None:
    names = [meta.dataset for meta in metas]
    for name in sorted({n for n in names if names.count(n) > 1}):
        raise ConfigError(f'{name} is given twice; give each prepared set once')
    for meta, path in zip(metas, files, strict=True):
        if get_dataset(meta.dataset).is_images:
            raise ConfigError(f'{path}: {meta.title} is for measuring only; leave it out')
        if meta.sequence:
            raise ConfigError(f'{path}: {meta.title} is a test set of sequences; leave it out')
    hands = {meta.hands: meta for meta in metas if meta.hands != NO_HANDS}
    if len(hands) > 1 and not official_hands:
        which = ', '.join(f'{meta.dataset} is {kind}' for kind, meta in hands.items())
        raise ConfigError(
            f'hands of two conventions: {which}. Prepare the mean-relative sets again with '
            '--mano, or mix them as the released code does with --official-hands'
        )


def _rows(meta: PreparedMeta, content: dict[str, np.ndarray], split: str) -> dict[str, np.ndarray]:
    """The packed arrays that one split of one set contributes to."""
    parts = {
        key.removeprefix(f'{split}_'): value
        for key, value in content.items()
        if key.startswith(f'{split}_') and not key.endswith('_clip')
    }
    result: dict[str, np.ndarray] = {}
    if not parts:
        return result
    if meta.mask == '1000':
        return {'body': parts['body']}
    if meta.mask.startswith('111'):
        body = parts['body']
        jaw = parts.get('jaw', np.zeros((len(body), 3), np.float32))
        expression = parts.get('expression', np.zeros((len(body), 0), np.float32))
        expression = np.pad(expression, ((0, 0), (0, EXPRESSION_COLUMNS - expression.shape[1])))
        if meta.mask[3] == '0':  # its faces are no good
            jaw, expression = np.zeros_like(jaw), np.zeros_like(expression)
        columns = [body, parts['left_hand'], parts['right_hand'], jaw, expression]
        return {'wholebody': np.concatenate(columns, axis=1)}
    if meta.mask == '0001':
        if meta.dataset in _SHAPE_ONLY:
            return {'face_shape': parts['betas'][:, :SHAPE_COLUMNS]}
        face = [parts['jaw'], parts['expression'][:, :EXPRESSION_COLUMNS]]
        return {'face': np.concatenate(face, axis=1)}
    result['hand'] = parts['hand'] if 'hand' in parts else _single(parts)
    if meta.mask == '0110' and len(parts['left_hand']):
        result['two_hands'] = np.concatenate([parts['left_hand'], parts['right_hand']], axis=1)
    return result


def _single(parts: dict[str, np.ndarray]) -> np.ndarray:
    """All hands in right-hand form, mirrored left ones first."""
    mirror = np.tile(np.asarray(MIRROR_SIGN, np.float32), 15)
    hands = [parts['left_hand'] * mirror] if 'left_hand' in parts else []
    return np.concatenate([*hands, *([parts['right_hand']] if 'right_hand' in parts else [])])
