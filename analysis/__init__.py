"""Analysis: rows to tables, statistics and figures; reads results/ alone."""
