"""Table 'modes': hidden limbs by several hypotheses, all methods at the same cost.

Not a table of the paper, which names the modes that its loop misses as a limitation (section K).
Every method may call the network 2000 times a pose and names ten hypotheses.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dposer_core.prior.sampling import normal_draw
from dposer_core.tasks.completion import CompletionProtocol, body_mask, complete, hide
from dposer_core.tasks.modes import STEPS, anneal, representatives
from dposer_core.tasks.optimise import Stages
from training.benchmarks.body_completion import HYPOTHESES, body_judge
from training.benchmarks.generation import BODY_NEED, PACKED_NEED
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Options, Plan, table
from training.benchmarks.task_data import MEASURE_ONLY, body_sets, load_diffusion

PARTS = ('left_leg', 'arms', 'torso')
_CALLS = 2000  # of the network, for a pose
_MEASURES = {'min': ('lower', 'mm'), 'mean': ('lower', 'mm'), 'APD': ('higher', 'cm')}

Particles = Callable[[Tensor, Tensor, int], Tensor]
"""Normalised poses (N, D), mask, number M -> completed (M N, D)."""


@table('modes', 'Hidden limbs in several modes at equal cost', [PACKED_NEED, BODY_NEED])
def plan(options: Options) -> Plan:
    """Tries of DPoser's loop and annealed particles, as they come and well chosen."""
    prior, normalizer, hashes = load_diffusion(options, 'body')
    sets = body_sets(options, 60 if options.is_quick else 500)
    judge = body_judge()

    def loop(steps: int, one_start: bool = False) -> Particles:
        protocol = CompletionProtocol(stages=Stages(2, steps // 2, betas=(0.9, 0.99)))

        def run(x: Tensor, mask: Tensor, count: int) -> Tensor:
            draw, many = normal_draw(options.seed), x.repeat(count, 1)
            hidden = hide(x, mask, draw).repeat(count, 1) if one_start else hide(many, mask, draw)
            return complete(prior, hidden, mask, draw, protocol)

        return run

    def annealed(steps: int) -> Particles:
        def run(x: Tensor, mask: Tensor, count: int) -> Tensor:
            return anneal(prior, x.repeat(count, 1), mask, normal_draw(options.seed), steps - 1)

        return run

    few, many = _CALLS // HYPOTHESES, STEPS
    methods = {
        f'DPoser, one start, 10 of {few} steps': (loop(few, one_start=True), HYPOTHESES),
        f'DPoser, 10 starts of {few} steps': (loop(few), HYPOTHESES),
        'DPoser, 40 starts of 50 steps, chosen': (loop(_CALLS // 40), 40),
        f'annealed, 10 of {few} steps': (annealed(few), HYPOTHESES),
        f'annealed, {_CALLS // many} of {many} steps, chosen': (annealed(many), _CALLS // many),
    }

    def run(label: str) -> Row:
        particles, count = methods[label]
        values = {}
        for name, poses in sets.items():
            truth = torch.from_numpy(poses)
            for part in PARTS:
                mask = body_mask(part)
                x = particles(normalizer.normalize(truth), mask, count)
                raw = normalizer.denormalize(x).reshape(count, *truth.shape)
                if count > HYPOTHESES:
                    chosen = representatives(judge.joints(part, raw), HYPOTHESES)
                    raw = raw[chosen, torch.arange(len(truth))]
                found = judge.errors(part, raw, truth, joints_only=True)
                values |= {f'{name} {part} {key}': found[key] for key in _MEASURES}
        return Row(label, values)

    return Plan(
        columns=tuple(
            Column(f'{name} {part} {key}', *kind)
            for name in sets
            for part in PARTS
            for key, kind in _MEASURES.items()
        ),
        paper=(),
        jobs=tuple(Job(label, lambda label=label: run(label)) for label in methods),
        data=f'{len(next(iter(sets.values())))} poses of each: {", ".join(sets)}; evenly spread, '
        'none trained on',
        checkpoint_sha256=hashes,
        settings=(
            f'Every row calls the network {_CALLS} times a pose and names {HYPOTHESES} '
            "hypotheses; error of the part's joints, of the best and in the mean.",
            '"chosen": those ten particles to which all particles are nearest; the truth is not '
            'looked at.',
            MEASURE_ONLY if 'examples' in sets else 'The published examples are not here.',
        ),
    )
