"""The prior of the live fitter: one-step denoising in numpy, fast on one CPU thread, no torch.

`load_prior` makes a `LivePrior` of a part, of a whole-body student, or of a composition of part
networks with or without a correction; all of them look the same from outside.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dposer_core.errors import CheckpointError, ConfigError
from dposer_core.prior import compose
from dposer_core.prior.architecture import NUM_PARTS, WholeBodyLayout
from dposer_core.prior.backends import (
    BACKENDS,
    Denoiser,
    Ensemble,
    Network,
    checked_denoiser,
    reference_denoiser,
)
from dposer_core.prior.checkpoint import (
    WEIGHTS_DIR,
    load_checkpoint,
    user_weights_dir,
)
from dposer_core.prior.sde import SubVP

# A GPU is asked for by name: it would save 1 ms of a frame, costs the node torch and a CUDA
# context, and none of its back ends has run on one yet.
AUTO_ORDER = ('onnxruntime', 'torch')

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PriorFacts:
    """What a prior is, apart from its networks."""

    mean: np.ndarray
    """(D,) float32 mean of the raw vectors."""
    std: np.ndarray
    """(D,) float32 standard deviation of the raw vectors."""
    num_expression: int
    """Expression coefficients; 0 without a face."""
    is_whole: bool
    """Whether the vector is that of a whole body, whose parts can be masked."""
    hashes: dict[str, str]
    """Part -> sha256 of its weights."""
    licences: dict[str, str]
    """Part -> what its weights may be used for."""


class LivePrior:
    """A prior over normalised pose vectors, all visible parts denoised in one step.

    The whole-body vector is body 63 | left hand 45 | right hand 45 | jaw 3 | expression E; the
    left hand is stored mirrored to a right hand (`rotations.mirror_rotvec`), the statistics too
    are those of the mirrored vector. A prior of a single part has that part's vector.

    Args:
        denoiser: predicts the noise of a batch.
        facts: of the vector.
        backend: name of what runs the networks.
        self_check_error: how far it is from the reference.
    """

    def __init__(
        self, denoiser: Denoiser, facts: PriorFacts, backend: str, self_check_error: float
    ) -> None:
        self.backend = backend
        self.self_check_error = self_check_error
        self.num_expression = facts.num_expression
        self.hashes = facts.hashes
        self.mean, self.std = facts.mean, facts.std
        self.dim = len(facts.mean)
        self._sde = SubVP()
        self._denoiser = denoiser
        layout = WholeBodyLayout(facts.num_expression)
        self._part_slices = layout.parts if facts.is_whole else ()

    def denoise(
        self,
        x: np.ndarray,
        t: float,
        noise: np.ndarray | None = None,
        mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """One-step denoised vectors, x0_hat of x_t = alpha x + sigma noise.

        Args:
            x: (B, D) float32 normalised.
            t: diffusion time in (0, 1]; any value, its time table is made once and cached.
            noise: (B, D) standard normal; None: x_t = alpha x.
            mask: (B, 4) parts that the networks see, see `predict_noise`; None: all.

        Returns:
            (B, D) float32 normalised.
        """
        x = np.asarray(x, dtype=np.float32)
        alpha, sigma = np.float32(self._sde.alpha(t)), np.float32(self._sde.sigma(t))
        x_t = alpha * x
        if noise is not None:
            x_t += sigma * np.asarray(noise, dtype=np.float32)
        return (x_t - sigma * self.predict_noise(x_t, t, mask)) / alpha

    def predict_noise(
        self, x_t: np.ndarray, t: float, mask: np.ndarray | None = None
    ) -> np.ndarray:
        """The networks' noise prediction (B, D) for x_t (B, D) float32 at time t.

        `mask` (B, 4) names the visible ones of body, left hand, right hand and face by 1; the
        others enter the networks as zero, the mean of the normalised data.
        """
        if mask is not None:
            x_t = self._masked(x_t, np.asarray(mask))
        return self._denoiser(np.ascontiguousarray(x_t), t)

    def _masked(self, x_t: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if not self._part_slices:
            raise ConfigError(
                'this prior has one part only; part masks need a whole-body prior, such as mixed'
            )
        if mask.shape != (len(x_t), NUM_PARTS):
            raise ConfigError(
                f'part mask of shape {mask.shape} for {len(x_t)} rows; expected one row each of '
                'body, left hand, right hand, face'
            )
        masked = x_t.copy()
        for index, part in enumerate(self._part_slices):
            masked[:, part] *= mask[:, index : index + 1].astype(x_t.dtype)
        return masked

    def warm_up(self, times: Any, batches: tuple[int, ...] = (1,)) -> None:
        """Make the time tables of `times` and touch every kernel, so that no frame pays for it."""
        for t in times:
            for batch in batches:
                self.denoise(np.zeros((batch, self.dim), np.float32), float(t))

    def info(self) -> dict[str, str]:
        """Back end, self-check figure and weight hashes, for diagnostics."""
        hashes = {f'sha256 {name}': value[:12] for name, value in self.hashes.items()}
        return {'backend': self.backend, 'self check': f'{self.self_check_error:.1e}', **hashes}


def load_prior(
    name_or_path: str | Path,
    backend: str = 'auto',
    num_expression: int | None = None,
) -> LivePrior:
    """The shipped prior of that name, or that of a .json (composition, artefact) or .safetensors.

    Args:
        name_or_path: for example 'mixed' or 'body'.
        backend: a key of `BACKENDS`, or 'auto' (the first of `AUTO_ORDER` that works). One asked
            for by name is used or an error, never replaced.
        num_expression: expression coefficients of the body model, checked against the face part.

    Raises:
        CheckpointError: no such prior, a damaged or unfit file.
        ConfigError: the back end is unknown, not installed, or fails its self-check.
    """
    from dposer_core.prior.artefact import is_artefact  # it builds on this module

    path = prior_path(name_or_path)
    if is_artefact(path):
        return _load_artefact(path, backend, num_expression)
    if backend != 'auto':
        if backend not in BACKENDS:
            raise ConfigError(
                f"prior.backend = '{backend}': choose one of auto, {', '.join(BACKENDS)}"
            )
        return _load(path, backend, num_expression)
    for name in AUTO_ORDER[:-1]:
        try:
            return _load(path, name, num_expression)
        except ConfigError as error:
            _logger.warning('%s; trying the next back end', error)
    return _load(path, AUTO_ORDER[-1], num_expression)


def _load_artefact(path: Path, backend: str, num_expression: int | None) -> LivePrior:
    from dposer_core.prior.artefact import BACKEND, load_artefact

    if backend not in ('auto', BACKEND):
        raise ConfigError(
            f"prior.backend = '{backend}': {path} holds an ONNX graph; use {BACKEND}"
        )
    denoiser, facts, error = load_artefact(path)
    _check_expression(path, facts.num_expression, num_expression)
    return LivePrior(denoiser, facts, BACKEND, error)


def _load(path: Path, backend: str, num_expression: int | None) -> LivePrior:
    networks = read_networks(path, num_expression)
    denoiser, error = checked_denoiser(networks.ensemble, backend, networks.reference)
    return LivePrior(denoiser, networks.facts, backend, error)


@dataclass(frozen=True)
class PriorNetworks:
    """A prior as its files hold it."""

    ensemble: Ensemble
    """The networks as they are evaluated: a correction is folded (`compose.fold`)."""
    facts: PriorFacts
    """Of the vector."""
    reference: Denoiser
    """The plain formula, a correction as it was trained."""


def read_networks(name_or_path: str | Path, num_expression: int | None = None) -> PriorNetworks:
    """Networks and facts of a prior; arguments and errors as of `load_prior`."""
    path = prior_path(name_or_path)
    composition = None if path.suffix == '.safetensors' else compose.load_composition(path)
    checkpoints = [load_checkpoint(path)] if composition is None else [*composition.parts()]
    correction = None if composition is None else composition.correction()
    parts = []
    for part in checkpoints:
        _check_expression(path, part.num_expression, num_expression)
        copies = 2 if composition is not None and part.part == 'hand' else 1
        parts.append(Network(part.config, part.weights, copies))
    facts = PriorFacts(
        mean=_of_vector([part.mean for part in checkpoints], parts),
        std=_of_vector([part.std for part in checkpoints], parts),
        num_expression=sum(part.num_expression for part in checkpoints),
        is_whole=composition is not None or checkpoints[0].part == 'wholebody',
        hashes={part.part: part.sha256 for part in checkpoints},
        licences={part.part: part.licence for part in checkpoints},
    )
    if correction is None:
        ensemble = Ensemble(parts)
        return PriorNetworks(ensemble, facts, reference_denoiser(ensemble))
    first_layers = [
        compose.first_layer(part)
        for part, network in zip(checkpoints, parts, strict=True)
        for _ in range(network.copies)
    ]
    folded = compose.fold(correction, first_layers)
    ensemble = Ensemble(parts, Network(folded.config, folded.weights), folded.offset)
    facts.hashes['correction'] = correction.sha256
    facts.licences['correction'] = correction.licence
    as_trained = compose.reference_correction(correction, first_layers)
    return PriorNetworks(ensemble, facts, reference_denoiser(ensemble, as_trained))


def _of_vector(values: list[np.ndarray], parts: list[Network]) -> np.ndarray:
    """(D,) values of the parts in the order of the vector."""
    pairs = zip(values, parts, strict=True)
    return np.concatenate([np.tile(value, network.copies) for value, network in pairs])


def _check_expression(path: Path, own: int, wanted: int | None) -> None:
    """Raise unless the expression space of a prior can be that of the body model."""
    if own and wanted not in (None, own):
        raise CheckpointError(
            f'prior {path}: its face part has {own} expression coefficients, the body model '
            f'{wanted}; their spaces differ, use a face prior trained on this body model'
        )


def prior_path(name_or_path: str | Path) -> Path:
    """File of a prior: shipped, imported (`user_weights_dir`), or the path itself."""
    path = Path(name_or_path)
    if path.suffix in ('.json', '.safetensors'):
        if not path.is_file():
            raise CheckpointError(
                f'prior {path} not found; give a composition .json, a .safetensors, or a name'
            )
        return path
    folders = (WEIGHTS_DIR, user_weights_dir())
    found = [
        f
        for folder in folders
        for kind in ('json', 'safetensors')
        for f in sorted(folder.glob(f'*.{kind}'))
    ]
    for candidate in found:
        if candidate.stem == str(name_or_path):
            return candidate
    names = ', '.join(sorted({candidate.stem for candidate in found})) or 'none'
    raise CheckpointError(
        f"no prior is named '{name_or_path}'; shipped or imported: {names}; or give a file"
    )
