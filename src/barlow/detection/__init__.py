"""Detection and instance segmentation with an encoder as the backbone: annotated sets, detectors, training, AP.

Nothing here is imported before it is needed: the detectors are torchvision's, and AP is computed by pycocotools (extra
`detection`).
"""
