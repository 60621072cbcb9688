"""Image data sets: reading, labels, loading, writing; the procedural toy heads."""
