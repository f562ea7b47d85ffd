"""Features of images, in memory and in files: `barlow embed`, `Embedder`, `barlow search` and `barlow duplicates`.

`embedding.py` computes the features of a whole set into a file, and `embedder.py` those of one batch for engines that
people already run. `feature_files.py` and `feature_places.py` know the files, `stored_features.py` reads them again,
and `vectors.py` has images as vectors in memory. `searching.py` and `copy_finding.py` ask which images are like which.
"""
