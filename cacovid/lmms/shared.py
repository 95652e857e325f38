"""What several models of one process share: a sweep's job loads the weights once, and encodes each video once."""

from dataclasses import dataclass, replace
from typing import Self

from cacovid.backbones import Backbone, load_backbone
from cacovid.lmms.arguments import ArgumentError, Arguments
from cacovid.lmms.clips import ClipCache, shared_worker
from cacovid.lmms.encoding import ClipEncoder
from cacovid.records import Need
from cacovid.store import Counters, DiskStore, MemoryStore, Store, encoder_identity

_SAME = (
    "pretrained",
    "revision",
    "device",
    "dtype",
    "attn_implementation",
    "max_frames_num",
    "min_pixels",
    "max_pixels",
    "sampling",
    "read_timeout",
)
"""Arguments that what is shared was made with."""
_OWN = ("store", "store_dir", "store_gib", "prefetch")
"""Arguments that are what is shared's own, whatever a model asks for."""


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """A loaded backbone with its reader, its store and their counters."""

    family: str
    arguments: Arguments
    backbone: Backbone
    encoder: ClipEncoder

    @classmethod
    def load(cls, arguments: Arguments, needs: frozenset[Need] = frozenset(), *, family: str = "llava_ov") -> Self:
        """Load what `arguments` name.

        Args:
            needs: what all the methods to come need together: the first encoding of a video stores all of it.

        Raises DeviceError or CheckpointError.
        """
        backbone = load_backbone(
            family,
            arguments.pretrained,
            device=arguments.device,
            dtype=arguments.dtype,
            attn_implementation=arguments.attn_implementation,
            revision=arguments.revision,
            min_pixels=arguments.min_pixels,
            max_pixels=arguments.max_pixels,
        )
        counters, frames = Counters(), arguments.max_frames_num or backbone.frames
        clips = ClipCache(
            [shared_worker(number) for number in range(max(arguments.prefetch, 1))],
            counters,
            frames=frames,
            sampling=arguments.sampling,
            timeout=arguments.read_timeout,
            keep=arguments.batch_size + 1,
            ahead=arguments.prefetch,
            preprocess=lambda clip: backbone.preprocess(clip.frames),
        )
        identity = encoder_identity(backbone, arguments.pretrained, frames=frames, sampling=arguments.sampling)
        encoder = ClipEncoder(backbone, clips, identity, counters, _store(arguments, counters), needs)
        return cls(family, arguments, backbone, encoder)

    @property
    def counters(self) -> Counters:
        """What was decoded, encoded and taken from the store so far."""
        return self.encoder.counters

    @property
    def frames(self) -> int:
        """Frames that are asked for of every video."""
        return self.encoder.identity.frames

    def check(self, family: str, arguments: Arguments) -> None:
        """Raises ArgumentError where a model of `family` with these arguments cannot use what is shared."""
        pairs = [("family", family, self.family)]
        pairs += [(name, getattr(arguments, name), getattr(self.arguments, name)) for name in _SAME]
        if other := [f"{name}={own!r} instead of {shared!r}" for name, own, shared in pairs if own != shared]:
            raise ArgumentError(
                f"the shared backbone was loaded otherwise: {', '.join(other)}; give this model a `Shared` of its own"
            )

    def with_store(self, arguments: Arguments) -> Arguments:
        """The arguments of a model that uses what is shared, with the store and the readers that it really has."""
        return replace(arguments, **{name: getattr(self.arguments, name) for name in _OWN})


def _store(arguments: Arguments, counters: Counters) -> Store | None:
    limit = int(arguments.store_gib * 2**30)
    match arguments.store:
        case "off":
            return None
        case "memory":
            return MemoryStore(limit, counters)
        case "disk":
            return DiskStore(arguments.store_dir, limit, counters)
