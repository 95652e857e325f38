"""The embedded test bed: procedural videos with known evidence, and a small trained LLaVA-OneVision."""
