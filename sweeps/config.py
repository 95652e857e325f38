"""From the command line to a sweep: Hydra composes `sweeps/conf` and the user's folder, pydantic checks the result.

Overrides are Hydra's own. Two things are taken besides: `retention=.25,.2`, for Hydra a multirun, is the list
`retention=[.25,.2]`, since a sweep is one run; and a key of `sweeps/settings.py` needs no `+` where no config says it.
"""

from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError

from sweeps.settings import Backbone, ConfigError, Executor, Rows, Store, Sweep, Task

CONF = Path(__file__).parent / "conf"
LISTS = ("retention", "budget", "seeds")
"""Keys that hold lists, and take a single value for a list of one."""

for _part in (Sweep, Backbone, Rows, Task, Store, Executor):
    _config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
    setattr(_part, "__pydantic_config__", _config)  # noqa: B010  mypy knows no such attribute

_every = asdict(Sweep(name="???", backbones={}, methods={}, tasks={}, executor=Executor("local")))
ConfigStore.instance().store("every_setting_of_a_sweep", OmegaConf.create(_every))


def _above(floor: float, *, _root_: DictConfig) -> list[float]:
    return [r for r in _ratios(_root_) if r > floor]


def _below(ceiling: float, *, _root_: DictConfig) -> list[float]:
    return [r for r in _ratios(_root_) if r < ceiling]


def _ratios(root: DictConfig) -> list[float]:
    """The sweep's; what is no number is told when the rest is checked."""
    given = root.retention
    return [r for r in (given if OmegaConf.is_list(given) else [given]) if isinstance(r, int | float)]


# For rows with a retention of their own: the sweep's ratios above a method's floor, or below 1.
OmegaConf.register_new_resolver("above", _above, replace=True)
OmegaConf.register_new_resolver("below", _below, replace=True)
OmegaConf.register_new_resolver("product", lambda one, other: int(one) * int(other), replace=True)


def compose_sweep(overrides: Sequence[str], config_dir: Path | None = None) -> Sweep:
    """The sweep that the overrides describe, with the options of a user's folder among the known ones.

    Raises ConfigError with what was got and what is known.
    """
    known = options(config_dir)
    texts = [_checked(override, known) for override in _parsed(overrides)]
    if config_dir is not None:
        folder = str(config_dir.resolve()).replace("\\", "\\\\").replace("'", "\\'")
        texts.append(f"hydra.searchpath=['file://{folder}']")
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("config", texts)
        values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        values["methods"] = {label: _listed(rows) for label, rows in values["methods"].items()}
        sweep = TypeAdapter(Sweep).validate_python(_listed(values))
    except MissingConfigException as error:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        if group not in known:  # a file that a config in the user's folder names
            raise ConfigError(str(error).split("\nConfig search path")[0]) from error
        raise ConfigError(f"group {group}: {_unknown('option', option, known[group])}") from error
    except (HydraException, OmegaConfBaseException) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise ConfigError(f"{error}{cause}") from error
    except ValidationError as error:
        raise ConfigError("; ".join(map(_told, error.errors()))) from error
    if empty := [name for name in LISTS if not getattr(sweep, name)]:
        raise ConfigError(f"{empty[0]} is empty; expected at least one, as in {empty[0]}=[...]")
    return sweep


def options(config_dir: Path | None = None) -> dict[str, list[str]]:
    """Config groups and their options, those of the user's folder among them.

    Raises ConfigError for a folder that is not there, or an option in it that hides one of ours.
    """
    found = _options_in(CONF)
    if config_dir is None:
        return found
    if not config_dir.is_dir():
        raise ConfigError(
            f"config folder {config_dir}: no such folder; expected one laid out as {CONF.name}/ of sweeps"
        )
    for group, names in _options_in(config_dir).items():
        if twice := sorted(set(names) & set(found.get(group, []))):
            raise ConfigError(f"{config_dir}/{group}/{twice[0]}.yaml: there is an option of that name; rename yours")
        found[group] = sorted([*found.get(group, []), *names])
    return found


def _options_in(folder: Path) -> dict[str, list[str]]:
    groups = {path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in sorted(folder.iterdir())}
    return {group: names for group, names in groups.items() if names}


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(f"{error}; expected group=option, key=value, +key=value or ~key") from error


def _checked(override: Override, known: dict[str, list[str]]) -> str:
    """The override's text, its bare commas made a list. Raises ConfigError for a key that is not known."""
    key, text = override.key_or_group, str(override.input_line)
    if key.startswith("hydra."):
        if key != "hydra.searchpath":
            raise ConfigError(f"{text}: there is no Hydra job whose settings could be changed; see --config-dir")
    elif key not in known:
        _check_key(key, text, list(known))
    if override.is_sweep_override():
        value = override.value()
        if not (isinstance(value, ChoiceSweep) and value.simple_form):
            raise ConfigError(f"{text}: a sweep is one run, not a multirun; give a list: {key}=[...]")
        name, _, values = text.partition("=")
        text = f"{name}=[{values}]"
    plain = override.type == OverrideType.CHANGE and key not in known and not key.startswith("hydra.")
    return f"++{text}" if plain else text


def _check_key(key: str, text: str, groups: list[str]) -> None:
    parts = key.split(".")
    for depth, part in enumerate(parts):
        kind = _kind(parts[:depth])
        if is_dataclass(kind) and part not in (known := [field.name for field in fields(kind)]):
            raise ConfigError(f"{text}: {_unknown('key', part, known if depth else [*known, *groups])}")


def _kind(path: Sequence[Any]) -> Any:
    """Type of what lies at `path` in a sweep."""
    kind: Any = Sweep
    for part in path:
        values = get_args(kind)[-1:] or [None]  # of a dict
        kind = get_type_hints(kind).get(part) if is_dataclass(kind) else values[0]
    return kind


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"no {what} {name!r}{hint}; known: {', '.join(sorted(set(known)))}"


def _told(error: Any) -> str:
    """One of pydantic's complaints in words."""
    where = f"{'.'.join(map(str, error['loc']))}={error['input']!r}"
    if error["type"] != "unexpected_keyword_argument":
        return f"{where}: {error['msg']}"
    *path, last = error["loc"]
    return f"{where}: {_unknown('key', last, [field.name for field in fields(_kind(path))])}"


def _listed(values: Any) -> Any:
    """`values` with single values of LISTS made lists of one; `seeds: true` of a row is none."""
    single = (int, float, str)
    return {
        key: [value] if key in LISTS and isinstance(value, single) and not isinstance(value, bool) else value
        for key, value in values.items()
    }
