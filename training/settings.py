"""Reads YAML files into frozen dataclasses, strictly: a key that means nothing is an error.

A file may hold `variants`: named sets of values that are put over the others on request, such as
the settings of a paper's text where those of the released code are the default.
"""

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from dposer_core.errors import ConfigError

T = TypeVar('T')
_VARIANTS = 'variants'


def read_settings(path: Path, kind: type[T], variant: str = '') -> T:
    """The dataclass `kind` with the values of the YAML file `path`.

    Args:
        path: the file; what it does not name keeps its default.
        kind: a dataclass; fields may be dataclasses and dicts of dataclasses.
        variant: name under `variants` of the file; empty: none.

    Raises:
        ConfigError: no such file or variant, no YAML, unknown key, wrong type.
    """
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError as error:
        raise ConfigError(f'{path} not found; give a YAML file{_others(path)}') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f'{path} is not YAML: {error}') from error
    if not isinstance(values, dict):
        raise ConfigError(f'{path} holds a {type(values).__name__}, expected keys and values')
    variants = values.pop(_VARIANTS, {})
    if variant:
        if variant not in variants:
            raise ConfigError(f"{path} has no variant '{variant}'; it has: {sorted(variants)}")
        values = _merged(values, variants[variant])
    return from_values(kind, values, str(path))


def from_values(kind: type[T], values: Mapping[str, Any], where: str, prefix: str = '') -> T:
    """The dataclass `kind` of nested `values`; `where` says in errors what they come from."""
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{prefix}{key}'{nearest(str(key), known)}")
    required = [
        name
        for name, field in known.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in required if name not in values]:
        raise ConfigError(f"{where}: '{prefix}{missing[0]}' is missing; set it")
    converted = {
        key: _converted(hints[key], value, where, f'{prefix}{key}')
        for key, value in values.items()
    }
    try:
        return kind(**converted)
    except ConfigError as error:
        raise ConfigError(f'{where}: {error}') from error


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f'; known: {", ".join(sorted(known))}'


def _converted(kind: Any, value: Any, where: str, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: '{name}' = {value!r}: expected keys and values")
        return from_values(kind, value, where, f'{name}.')
    origin = typing.get_origin(kind)
    if origin is dict:
        _, inner = typing.get_args(kind)
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: '{name}' = {value!r}: expected keys and values")
        return {k: _converted(inner, v, where, f'{name}.{k}') for k, v in value.items()}
    if origin is tuple:
        inner = typing.get_args(kind)[0]
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: '{name}' = {value!r}: expected a list")
        return tuple(_converted(inner, v, where, f'{name}[{i}]') for i, v in enumerate(value))
    if origin in (typing.Union, types.UnionType) or kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        hint = ' (write it with a point: 1.0e-3)' if kind is float else ''
        raise ConfigError(
            f"{where}: '{name}' = {value!r}: expected {kind.__name__}, "
            f'got {type(value).__name__}{hint}'
        )
    return value


def _merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(values)
    for key, value in over.items():
        inner = result.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        result[key] = _merged(inner, value) if both else value
    return result


def _others(path: Path) -> str:
    """The end of an error about a file that is not there: files beside it with near names."""
    if not path.parent.is_dir():
        return ''
    names = [name for name in os.listdir(path.parent) if name.endswith('.yaml')]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f", perhaps '{path.parent / near[0]}'" if near else ''
