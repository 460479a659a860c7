"""The node's ROS parameters, and `config/wholebody.yaml` with them.

They are made from the classes of dposer_core.config and dposer_ros.node_config.

`python -m dposer_ros.parameters FILE` writes that file.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from dposer_core.config import Config, checked, from_mapping, parameters
from dposer_core.errors import ConfigError
from dposer_core.files import write_text
from dposer_ros.node_config import NodeConfig, known_parameters

# rclpy declares these on every node.
RCLPY_PARAMETERS = ('use_sim_time', 'start_type_description_service')


class NodeParameters:
    """Declares every parameter, holds what they say, and judges changes while the node runs.

    A value from the command line or a parameter file that is not valid does not stop the node:
    `check` reports it, so that configuring fails with the reason and works once it is corrected.

    Args:
        node: where to declare them.
        is_configured: whether values that are not live are in use.
        on_change: told what was changed, after it is in use.
    """

    def __init__(
        self,
        node: Node,
        is_configured: Callable[[], bool] = lambda: False,
        on_change: Callable[[Mapping[str, Any]], None] = lambda changes: None,
    ) -> None:
        self._node = node
        self._is_configured = is_configured
        self._on_change = on_change
        self._known = known_parameters()
        self._errors: dict[str, str] = {}
        self.core = Config()
        self.node = NodeConfig()
        # rclpy keeps what a parameter file says in this attribute alone, and would refuse to
        # construct the node over an integer written for a float.
        overrides = node._parameter_overrides
        self._warn_about_unknown(overrides)
        values = {name: self._declare(name, overrides) for name in self._known}
        self._apply(values)
        node.add_on_set_parameters_callback(self._judge)
        node.add_post_set_parameters_callback(self._accept)

    def check(self) -> None:
        """Raise ConfigError if a parameter of the start was not valid and is not corrected yet."""
        if self._errors:
            raise ConfigError('; '.join(self._errors.values()))
        contradiction = _contradiction(self.core, self.node)
        if contradiction:
            raise ConfigError(contradiction)

    def _declare(self, name: str, overrides: Mapping[str, Parameter]) -> Any:
        default, metadata = self._known[name]
        value = default
        if name in overrides:
            try:
                value = checked(name, overrides[name].value, default, metadata)
            except ConfigError as error:
                self._errors[name] = str(error)
        descriptor = _descriptor(default, metadata)
        self._node.declare_parameter(name, value, descriptor, ignore_override=True)
        return value

    def _warn_about_unknown(self, overrides: Mapping[str, Parameter]) -> None:
        for name in overrides:
            if (
                name in self._known
                or name in RCLPY_PARAMETERS
                or name.startswith('qos_overrides.')
            ):
                continue
            near = difflib.get_close_matches(name, self._known, n=1, cutoff=0.0)
            self._node.get_logger().warning(
                f"unknown parameter '{name}' ignored; did you mean '{near[0]}'?"
            )

    def _judge(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            values = {}
            for change in changes:
                if change.name not in self._known:
                    continue
                default, metadata = self._known[change.name]
                values[change.name] = checked(change.name, change.value, default, metadata)
                if self._is_configured() and not metadata['live']:
                    raise ConfigError(
                        f"parameter '{change.name}' is read on configure only; deactivate and "
                        'clean up the node first'
                    )
            contradiction = _contradiction(*self._merged(values))
            if contradiction:
                raise ConfigError(contradiction)
        except Exception as error:  # whatever it is, the caller gets the reason
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _accept(self, changes: list[Parameter]) -> None:
        values = {p.name: p.value for p in changes if p.name in self._known}
        for name in values:
            self._errors.pop(name, None)
        self._apply(values)
        if values:
            self._on_change(values)

    def _apply(self, values: Mapping[str, Any]) -> None:
        self.core, self.node = self._merged(values)

    def _merged(self, values: Mapping[str, Any]) -> tuple[Config, NodeConfig]:
        own = {name for name, _, _ in parameters(NodeConfig())}
        return (
            from_mapping({k: v for k, v in values.items() if k not in own}, self.core),
            from_mapping({k: v for k, v in values.items() if k in own}, self.node),
        )


def declare(node: Node, default: Any) -> tuple[Any, ConfigError | None]:
    """Declare a config's parameters on a node that reads them once.

    Args:
        node: with what the command line and parameter files say.
        default: dataclass of the parameters.

    Returns:
        The config, and what is wrong with it: for the node to say when somebody listens.
    """
    known = {name: (value, metadata) for name, value, metadata in parameters(default)}
    values, wrong = {name: value for name, (value, _) in known.items()}, None
    # As above: a value that is not valid must not stop the node while it is constructed.
    for name, given in node._parameter_overrides.items():
        if name in RCLPY_PARAMETERS or name.startswith('qos_overrides.'):
            continue
        try:
            from_mapping({name: given.value}, default)  # refuses names nobody knows
            values[name] = checked(name, given.value, *known[name])
        except ConfigError as error:
            wrong = error
    for name, value in values.items():
        node.declare_parameter(name, value, _descriptor(*known[name]), ignore_override=True)
    return from_mapping(values, default), wrong


def wholebody_yaml() -> str:
    """The text of config/wholebody.yaml: every parameter at its default, with its help."""
    lines = [
        '# Parameters of the node dposer_wholebody, all at their defaults. Generated by',
        '# `python -m dposer_ros.parameters config/wholebody.yaml`; (live): while running.',
        'dposer_wholebody:',
        '  ros__parameters:',
    ]
    group = ''
    for name, (value, metadata) in known_parameters().items():
        head, _, leaf = name.rpartition('.')
        if head != group:
            group = head
            lines.append(f'    {group}:')
        indent = ' ' * (6 if head else 4)
        lines.append(f'{indent}# {_describe(metadata)}')
        lines.append(f'{indent}{leaf}: {_yaml_scalar(value)}')
    return '\n'.join(lines) + '\n'


def parameter_table() -> str:
    """The README's table of all parameters, Markdown."""
    lines = ['| parameter | default | meaning |', '|---|---|---|']
    for name, (value, metadata) in known_parameters().items():
        meaning = _describe(metadata).replace('|', 'or')
        lines.append(f'| `{name}` | `{_yaml_scalar(value)}` | {meaning} |')
    return '\n'.join(lines) + '\n'


def _describe(metadata: Mapping[str, Any]) -> str:
    low, high = metadata['low'], metadata['high']
    parts = [metadata['help']]
    if metadata['choices']:
        parts.append(' | '.join(metadata['choices']))
    if low is not None or high is not None:
        parts.append(f'[{low}, {high}] {metadata["unit"]}'.rstrip())
    if metadata['live']:
        parts.append('(live)')
    return '; '.join(parts)


def _yaml_scalar(value: Any) -> str:
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return f"'{value}'" if isinstance(value, str) else str(value)


def _descriptor(default: Any, metadata: Mapping[str, Any]) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=metadata['help'] + (f' [{metadata["unit"]}]' if metadata['unit'] else ''),
        additional_constraints=', '.join(metadata['choices'])
        or ('' if metadata['live'] else 'read on configure'),
    )
    low, high = metadata['low'], metadata['high']
    if low is None or high is None:
        return descriptor
    if isinstance(default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(low), to_value=float(high))
        ]
    elif isinstance(default, int):
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return descriptor


def _contradiction(config: Config, node: NodeConfig) -> str:
    """What is wrong between parameters that are valid by themselves; empty if nothing."""
    if config.occlusion.lost_timeout <= config.occlusion.predict_timeout:
        return (
            f"parameter 'occlusion.lost_timeout' = {config.occlusion.lost_timeout}: must be above "
            f"'occlusion.predict_timeout' = {config.occlusion.predict_timeout}"
        )
    if config.prior.t_max < config.prior.t_min:
        return (
            f"parameter 'prior.t_max' = {config.prior.t_max}: must not be below "
            f"'prior.t_min' = {config.prior.t_min}"
        )
    if node.degrade.up_below >= node.degrade.down_above:
        return (
            f"parameter 'degrade.up_below' = {node.degrade.up_below}: must be below "
            f"'degrade.down_above' = {node.degrade.down_above}"
        )
    return ''


def main() -> None:
    """Write the parameter file named on the command line."""
    import sys
    from pathlib import Path

    write_text(Path(sys.argv[1]), wholebody_yaml())


if __name__ == '__main__':
    main()
