"""`--model_args`: from what lmms-eval parsed to typed settings, with clear refusals."""

import json
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from cacovid.budget import BudgetMode
from cacovid.errors import MethodError
from cacovid.method import Method
from cacovid.registry import build_method, method_class

StoreKind = Literal["off", "memory", "disk"]
"""Where encoded videos are kept for other questions and other runs."""


class ArgumentError(ValueError):
    """A model argument that is unknown, missing, or of the wrong kind."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The model arguments that every method shares."""

    pretrained: str  # folder, hub id, or "testbed" for the checkpoint that comes with the package
    revision: str | None = None  # of a hub id
    device: str = "auto"  # "auto" is cuda where there is one
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # "auto": as stored; float32 on a CPU
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    budget: BudgetMode = "nominal"  # what retention means: as the method's paper, layer_average, or flops
    max_frames_num: int | None = None  # None: `cacovid_frames` of the checkpoint's config, else 32
    min_pixels: int | None = (
        None  # area of a frame, for families that keep a video's resolution; None: the checkpoint's
    )
    max_pixels: int | None = None
    batch_size: int = 1
    sampling: Literal["round", "floor"] = "round"  # rule of frame indices; "floor" is lmms-eval's
    read_timeout: float = 60.0  # seconds for one video file
    prefetch: int = 2  # videos read ahead, each by a process of its own; 0 off; no part of a run's identity
    results_dir: str = "results/runs"
    resume: bool = True  # False sets earlier answers of the same run aside
    store: StoreKind = "off"  # where encoded videos are kept; no part of a run's identity
    store_dir: str = "results/store"  # of store=disk
    store_gib: float = 50.0  # size limit of the store: on the disk, or in the CPU's memory

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ArgumentError(f"batch_size={self.batch_size}, expected at least 1")
        if self.max_frames_num is not None and self.max_frames_num < 1:
            raise ArgumentError(f"max_frames_num={self.max_frames_num}, expected at least 1")
        if not self.read_timeout > 0:
            raise ArgumentError(f"read_timeout={self.read_timeout}, expected seconds above 0")
        if self.prefetch < 0:
            raise ArgumentError(
                f"prefetch={self.prefetch}, expected at least 0; 0 reads each video when it is asked for"
            )
        if not self.store_gib > 0:
            raise ArgumentError(f"store_gib={self.store_gib}, expected a size above 0; store=off keeps nothing")


def parse_arguments(method: str, given: dict[str, Any]) -> tuple[Arguments, Method]:
    """Split the model arguments into the shared ones and the method's fields, typed.

    Raises ArgumentError for an unknown, missing or malformed argument; MethodError or BudgetError from the
    method itself.
    """
    cls = method_class(method)
    shared = {f.name for f in fields(Arguments)}
    own = {f.name for f in fields(cls) if f.init}
    if clash := sorted(shared & own):
        raise MethodError(f"{method} has fields named like arguments of every method: {', '.join(clash)}; rename them")
    if unknown := sorted(set(given) - shared - own):
        raise ArgumentError(
            f"unknown model argument {', '.join(map(repr, unknown))}; every method takes {', '.join(sorted(shared))}; "
            f"{method} also takes {', '.join(sorted(own))}"
        )
    if missing := sorted({f.name for f in fields(Arguments) if f.default is MISSING} - set(given)):
        raise ArgumentError(f"model argument missing: {', '.join(f'{name}=...' for name in missing)}")
    arguments = Arguments(**{k: convert(Arguments, k, v) for k, v in given.items() if k in shared})
    return arguments, build_method(method, **{k: convert(cls, k, v) for k, v in given.items() if k in own})


def convert(cls: type, name: str, value: Any) -> Any:
    """`value` as the type that the field states. lmms-eval hands over "-1" as the float -1.0, and `8` as an int
    even where text is meant; lists come as JSON text.

    Raises ArgumentError where it does not fit.
    """
    kind = get_type_hints(cls)[name]
    if isinstance(value, str):
        if value.lower() in ("none", "null"):
            value = None
        elif value[:1] in "[{":
            value = json.loads(value) if _is_json(value) else value
    try:
        return TypeAdapter(kind, config=ConfigDict(coerce_numbers_to_str=True)).validate_python(value)
    except ValidationError as error:
        expected = "; ".join(dict.fromkeys(str(e["msg"]) for e in error.errors()))
        raise ArgumentError(f"{name}={value!r}: {expected}") from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
