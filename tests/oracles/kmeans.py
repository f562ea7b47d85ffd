"""Lloyd's algorithm as loops over rows and coordinates, in float64."""

import math


def squared_distances(row: list[float], centroids: list[list[float]], spherical: bool) -> list[float]:
    """To every centroid; spherical: 2 - 2 cos."""
    if spherical:
        row, centroids = direction(row), [direction(centroid) for centroid in centroids]
    return [sum((a - b) ** 2 for a, b in zip(row, centroid, strict=True)) for centroid in centroids]


def direction(row: list[float]) -> list[float]:
    length = math.sqrt(sum(a * a for a in row))
    return [a / length for a in row]


def assigned(rows: list[list[float]], centroids: list[list[float]], spherical: bool) -> list[int]:
    labels = []
    for row in rows:
        distances = squared_distances(row, centroids, spherical)
        labels.append(distances.index(min(distances)))
    return labels


def lloyd(
    rows: list[list[float]], centroids: list[list[float]], iterations: int, spherical: bool
) -> tuple[list[int], list[list[float]]]:
    """Labels and centroids after some iterations, where no cluster becomes empty."""
    for _ in range(iterations):
        labels = assigned(rows, centroids, spherical)
        moved = []
        for k in range(len(centroids)):
            members = [
                direction(row) if spherical else row for row, label in zip(rows, labels, strict=True) if label == k
            ]
            mean = [sum(member[i] for member in members) / len(members) for i in range(len(rows[0]))]
            moved.append(direction(mean) if spherical else mean)
        centroids = moved
    return assigned(rows, centroids, spherical), centroids
