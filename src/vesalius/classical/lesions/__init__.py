"""Finding lesions by design: filters that answer to blobs, to edges that point inwards, and to clusters of points.

`field` brings an image to a bounded size, `maps` filters it, `candidates` picks the strongest answers and
describes each by numbers. What is learned from them is in `classical.detection`.
"""
