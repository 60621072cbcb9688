"""Scores of generated images, poses and shapes; docs/metrics.md defines every number.

    detectors          images -> features
    statistics         features -> moments; kept in a cache for data sets
    scores             features or moments -> numbers
    poses, geometry    viewing directions or rendered views -> numbers
    quality, views     what each metric asks of a network, put together from the above
    registry           names -> metrics

Knows tensors and callables (`context`), and nothing of training.
"""
