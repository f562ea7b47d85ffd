"""What tables call a metric of a protocol, detection's too, which is no file of `protocols`."""

from barlow.probes.remarks import row_label

DETECT = "detect"
"""The first part of a detection's name, as in `detect:small_fpn:100`."""

CONVENTIONS = {"voc07": "VOC07", "coco_box": "COCO box", "coco_mask": "COCO mask"}
"""Of average precision: the first part of a metric's name, and what tables call it."""


def label_of_metric(protocol: str, metric: str) -> str:
    """What tables call a metric.

    Example:
        >>> label_of_metric("detect:small_fpn:100", "coco_box_AP50")
        'COCO box AP50'
    """
    if protocol.partition(":")[0] == DETECT:
        convention, _, name = metric.rpartition("_AP")
        if convention in CONVENTIONS:
            return f"{CONVENTIONS[convention]} AP{name.replace('_', ' ')}"
    return row_label(protocol, metric)
