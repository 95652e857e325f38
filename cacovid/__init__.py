"""CaCoVID and the methods it is compared with: video-token compression for video LLMs behind one interface."""

__version__ = "0.1.0"
