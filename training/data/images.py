"""Sets of images with a true surface, for measuring only: EHF and NoW."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.pose_batch import BadClipError

EHF_VERTICES = 10475
_PLY_TYPES = {
    'float': 'f4', 'float32': 'f4', 'double': 'f8', 'float64': 'f8', 'uchar': 'u1', 'uint8': 'u1',
    'char': 'i1', 'int8': 'i1', 'short': 'i2', 'ushort': 'u2', 'int': 'i4', 'int32': 'i4',
    'uint': 'u4', 'uint32': 'u4',
}  # fmt: skip


@dataclass(frozen=True)
class TrueImage:
    """One image and where its truth lies."""

    name: str
    image: Path
    surface: Path  # SMPL-X mesh (.ply) of EHF, scan (.obj) of NoW
    landmarks: Path | None = None  # of the scan
    box: Path | None = None  # of the face in the image


def list_ehf(root: Path) -> tuple[list[TrueImage], list[str]]:
    """The images <number>_img.png or .jpg that have a <number>_align.ply, and what lacks."""
    images, missing = [], []
    for number in range(1, 101):
        name = f'{number:02d}'
        paths = [p for p in (root / f'{name}_img.png', root / f'{name}_img.jpg') if p.is_file()]
        surface = root / f'{name}_align.ply'
        if paths and surface.is_file():
            images.append(TrueImage(name, paths[0], surface))
        else:
            missing.append(f'{name}_align.ply' if paths else f'{name}_img.png')
    return images, missing


def list_now(root: Path) -> tuple[list[TrueImage], list[str]]:
    """The validation images whose face box, scan and landmarks are there, and what lacks."""
    inner = root / 'NoW_Dataset' / 'final_release_version'
    release = inner if inner.is_dir() else root
    tables = [p / 'imagepathsvalidation.txt' for p in (root, release)]
    table = next((p for p in tables if p.is_file()), None)
    if table is None:
        return [], ['imagepathsvalidation.txt']
    images, missing = [], []
    for line in table.read_text().split():
        subject = line.split('/')[0]
        image = release / 'iphone_pictures' / line
        box = (release / 'detected_face' / line).with_suffix('.npy')
        scans = sorted((root / 'scans' / subject).glob('*.obj'))
        landmarks = sorted((root / 'scans_lmks_onlypp' / subject).glob('*.pp'))
        for path, there in (
            (image.relative_to(root), image.is_file()),
            (box.relative_to(root), box.is_file()),
            (f'scans/{subject}/*.obj', bool(scans)),
            (f'scans_lmks_onlypp/{subject}/*.pp', bool(landmarks)),
        ):
            if not there:
                missing.append(str(path))
                break
        else:
            images.append(TrueImage(line, image, scans[0], landmarks[0], box))
    return images, missing


def read_ply_vertices(path: Path) -> np.ndarray:
    """(V, 3) vertices of a .ply file, text or binary.

    Raises:
        BadClipError: not such a file, or truncated.
    """
    data = path.read_bytes()
    head, found, body = data.partition(b'end_header\n')
    lines = [line.split() for line in head.decode('ascii', 'replace').splitlines()]
    if not found or lines[:1] != [['ply']]:
        raise BadClipError('no .ply header in it')
    kind = next((line[1] for line in lines if line[:1] == ['format']), '')
    start = next((i for i, line in enumerate(lines) if line[:2] == ['element', 'vertex']), None)
    if start is None:
        raise BadClipError('no vertices in its header')
    count, columns = int(lines[start][2]), []
    for line in lines[start + 1 :]:
        if line[:1] == ['element']:
            break
        if line[:1] == ['property']:
            columns.append((line[2], _PLY_TYPES.get(line[1], '')))
    names = [name for name, _ in columns]
    if not {'x', 'y', 'z'} <= set(names) or any(not kind for _, kind in columns):
        raise BadClipError(f'vertex columns {names}, expected x, y, z of a known type')
    if kind == 'ascii':
        words = body.split(maxsplit=count * len(columns))[: count * len(columns)]
        if len(words) < count * len(columns):
            raise BadClipError(f'fewer than its {count} vertices; download it again')
        table = np.array(words, dtype=np.float64).reshape(count, -1)
        return table[:, [names.index(axis) for axis in 'xyz']]
    order = '<' if kind == 'binary_little_endian' else '>'
    row = np.dtype([(name, order + kind) for name, kind in columns])
    if len(body) < count * row.itemsize:
        raise BadClipError(f'fewer than its {count} vertices; download it again')
    vertices = np.frombuffer(body, dtype=row, count=count)
    return np.stack([vertices[axis] for axis in 'xyz'], axis=1).astype(np.float64)


def read_ehf_vertices(image: TrueImage) -> np.ndarray:
    """(10475, 3) true SMPL-X vertices, metres."""
    vertices = read_ply_vertices(image.surface)
    if vertices.shape != (EHF_VERTICES, 3) or not np.isfinite(vertices).all():
        raise BadClipError(f'{len(vertices)} vertices, expected {EHF_VERTICES} finite ones')
    return vertices
