"""Where in the video tokens the evidence of a question lies that is known by frames of the file."""

from collections.abc import Sequence


def token_frames(moments: Sequence[int], read: Sequence[int], merged: int, reach: int) -> list[int] | None:
    """The frame of tokens that shows each moment.

    Args:
        moments: frames of the file that show them, one a moment.
        read: frames of the file that were read, ascending.
        merged: how many of those are one frame of tokens.
        reach: frames of the file by which one that was read may miss its moment and still show it.

    None if one was missed, or if there are more frames of tokens than moments: several show one then.
    """
    if -(-len(read) // merged) > len(moments):
        return None
    nearest = [min(range(len(read)), key=lambda n: abs(read[n] - moment)) for moment in moments]
    if any(abs(read[n] - moment) > reach for n, moment in zip(nearest, moments, strict=True)):
        return None
    return [n // merged for n in nearest]
