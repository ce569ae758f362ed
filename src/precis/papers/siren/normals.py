"""Normals for points that have none: planes through neighbours, signs carried along a spanning tree.

The normal is the direction in which the 16 nearest points vary least; neighbours are made to agree along the minimum
spanning tree of 1 − |n_i · n_j|, and of each connected piece the outermost point faces outwards.  Hoppe, DeRose,
Duchamp, McDonald, Stuetzle, SIGGRAPH 1992, §3.2–3.3.
"""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree


def estimate_normals(points: np.ndarray, neighbours: int = 16) -> np.ndarray:
    """Unit normals [N,3] of points [N,3], N > `neighbours`."""
    _, near = cKDTree(points).query(points, neighbours + 1)
    around = points[near] - points[near].mean(1, keepdims=True)
    _, vectors = np.linalg.eigh(np.einsum("nka,nkb->nab", around, around))
    normals = vectors[:, :, 0]
    rows = np.repeat(np.arange(len(points)), neighbours)
    columns = near[:, 1:].ravel()
    # a weight of 0 would be no edge
    weights = 1 + 1e-6 - np.abs((normals[rows] * normals[columns]).sum(1))
    graph = coo_matrix((weights, (rows, columns)), (len(points),) * 2).tocsr()
    tree = minimum_spanning_tree(graph.maximum(graph.T))
    pieces, piece = connected_components(tree, directed=False)
    centre = points.mean(0)
    sign = np.zeros(len(points))
    for k in range(pieces):
        members = np.flatnonzero(piece == k)
        root = members[np.argmax(((points[members] - centre) ** 2).sum(1))]
        order, before = breadth_first_order(tree, root, directed=False)
        sign[root] = 1.0 if normals[root] @ (points[root] - centre) >= 0 else -1.0
        agrees = np.sign((normals[order[1:]] * normals[before[order[1:]]]).sum(1))
        for i, agreement in zip(order[1:], np.where(agrees == 0, 1.0, agrees)):
            sign[i] = agreement * sign[before[i]]
    return np.asarray(normals * sign[:, None])
