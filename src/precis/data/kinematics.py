"""Forward kinematics: where the joints of a tree are, from each one's rotation to its parent.

    R_j = R_parent(j) L_j,   p_j = p_parent(j) + R_parent(j) s_j

with s_j its offset from its parent at rest, seen from the parent.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def forward(
    parents: Sequence[int],
    steps: Float[np.ndarray, "j 3"],
    turns: Float[np.ndarray, "j t 3 3"],
    origin: Float[np.ndarray, "t 3"],
) -> tuple[Float[np.ndarray, "j t 3"], Float[np.ndarray, "j t 3 3"]]:
    """Positions and rotations to the world of every joint, of local rotations `turns` and rest offsets `steps`.

    Parents come before their children; the first joint has none (−1) and stands at `origin`, its own step left out.
    """
    place, frame = np.empty((*turns.shape[:2], 3)), np.empty_like(turns)
    place[0], frame[0] = origin, turns[0]
    for j, parent in enumerate(parents[1:], 1):
        place[j] = place[parent] + frame[parent] @ steps[j]
        frame[j] = frame[parent] @ turns[j]
    return place, frame
