"""A class for each model id, made when lmms-eval asks for it: `chat__llava_ov__attention_topk`."""

from functools import cache

from cacovid.lmms.model import CompressedModel


@cache
def __getattr__(name: str) -> type[CompressedModel]:
    """The class behind one class path of the manifest. Imports no method: a broken one fails when it is built."""
    form, _, rest = name.partition("__")
    family, _, method = rest.partition("__")
    if form not in ("simple", "chat") or not method:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    settings = {
        "is_simple": form == "simple",
        "method_name": method,
        "family": family,
        "__module__": __name__,
        "__doc__": f"{method} on {family}, {form} request form.",
    }
    return type(name, (CompressedModel,), settings)
