"""Does decoding start cleanly at a key frame? Containers flag more frames as such than decord's decoder can use."""

_REFRESH = {"h264": {5}, "hevc": {19, 20}}  # NAL unit types of IDR pictures (ITU-T H.264 table 7-1, H.265 table 7-1)
_LENGTH_BYTE = {"h264": 4, "hevc": 21}  # byte of the codec's header whose last two bits state the length size - 1


def starts_cleanly(codec: str, header: bytes | None, packet: bytes) -> bool:
    """Whether a key packet holds an IDR picture, before which nothing is remembered.

    After seeking to another kind of entry point (recovery point, CRA) decord's old decoder swallows frames, and
    decord numbers the rest wrongly. Codecs other than H.264 and HEVC have one kind only: True.
    """
    if codec not in _REFRESH:
        return True
    place = _LENGTH_BYTE[codec]
    if header is None or len(header) <= place or header[0] != 1:
        return False  # units are not stored by length, so none can be found: better not trusted
    size = (header[place] & 3) + 1
    at = 0
    while at + size < len(packet):
        first = packet[at + size]
        kind = first & 31 if codec == "h264" else first >> 1 & 63
        if kind in _REFRESH[codec]:
            return True
        at += size + int.from_bytes(packet[at : at + size], "big")
    return False
