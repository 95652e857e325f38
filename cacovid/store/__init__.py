"""Encoded videos, kept for other questions, other methods and other runs: in memory, or on a shared disk.

What is stored is content-addressed (`key`): a hit is bit-equal to encoding the video again.
"""

from cacovid.store.disk import DiskStore
from cacovid.store.entry import FEATURES, ClipFacts, Counters, Entry, Store
from cacovid.store.key import EncoderIdentity, encoder_identity
from cacovid.store.memory import MemoryStore

__all__ = [
    "FEATURES",
    "ClipFacts",
    "Counters",
    "DiskStore",
    "EncoderIdentity",
    "Entry",
    "MemoryStore",
    "Store",
    "encoder_identity",
]
