"""barlow: self-supervised image representations, by redundancy reduction and what it is compared with.

The public names are imported when first used, so that ``import barlow`` and the command line's help stay instant.
"""

import importlib
from typing import TYPE_CHECKING

from barlow import torchvision_guard

if TYPE_CHECKING:
    from barlow.caption_retrieval import retrieve as retrieve
    from barlow.checks.checking import check as check
    from barlow.detection.evaluating import detect as detect
    from barlow.encoders import find_encoder as find_encoder
    from barlow.estimators import Encoder as Encoder
    from barlow.estimators import LinearProbe as LinearProbe
    from barlow.evaluation import evaluate as evaluate
    from barlow.evaluation import evaluate_several as evaluate_several
    from barlow.exporting import export as export
    from barlow.features.copy_finding import duplicates as duplicates
    from barlow.features.embedder import Embedder as Embedder
    from barlow.features.embedding import embed as embed
    from barlow.features.searching import search as search
    from barlow.importing import import_weights as import_weights
    from barlow.objectives.barlow_twins import BarlowTwins as BarlowTwins
    from barlow.objectives.byol import BYOL as BYOL
    from barlow.objectives.byol_vicreg import BYOLVICReg as BYOLVICReg
    from barlow.objectives.cmc import CMC as CMC
    from barlow.objectives.colorization import Colorization as Colorization
    from barlow.objectives.context_prediction import ContextPrediction as ContextPrediction
    from barlow.objectives.counting import Counting as Counting
    from barlow.objectives.cpc import CPC as CPC
    from barlow.objectives.deepcluster_v1 import DeepClusterV1 as DeepClusterV1
    from barlow.objectives.deepcluster_v2 import DeepClusterV2 as DeepClusterV2
    from barlow.objectives.exemplar import Exemplar as Exemplar
    from barlow.objectives.exemplar_triplets import ExemplarTriplets as ExemplarTriplets
    from barlow.objectives.infomin import InfoMin as InfoMin
    from barlow.objectives.jigsaw import Jigsaw as Jigsaw
    from barlow.objectives.moco import MoCo as MoCo
    from barlow.objectives.moco_v3 import MoCoV3 as MoCoV3
    from barlow.objectives.npid import NPID as NPID
    from barlow.objectives.obow import OBoW as OBoW
    from barlow.objectives.pcl import PCL as PCL
    from barlow.objectives.pirl import PIRL as PIRL
    from barlow.objectives.rotation import Rotation as Rotation
    from barlow.objectives.sela import SeLa as SeLa
    from barlow.objectives.simclr import SimCLR as SimCLR
    from barlow.objectives.simsiam import SimSiam as SimSiam
    from barlow.objectives.supervised import Supervised as Supervised
    from barlow.objectives.swav import SwAV as SwAV
    from barlow.objectives.vicreg import VICReg as VICReg
    from barlow.objectives.vse import VSE as VSE
    from barlow.objectives.w_mse import WMSE as WMSE
    from barlow.pretraining import pretrain as pretrain
    from barlow.runs.finishing import load_encoder as load_encoder
    from barlow.study import compare as compare
    from barlow.text_branch import load_text_encoder as load_text_encoder

__version__ = "0.1.0"

_HOME = {
    "BYOL": "barlow.objectives.byol",
    "BarlowTwins": "barlow.objectives.barlow_twins",
    "ContextPrediction": "barlow.objectives.context_prediction",
    "DeepClusterV1": "barlow.objectives.deepcluster_v1",
    "DeepClusterV2": "barlow.objectives.deepcluster_v2",
    "SeLa": "barlow.objectives.sela",
    "Counting": "barlow.objectives.counting",
    "Encoder": "barlow.estimators",
    "Exemplar": "barlow.objectives.exemplar",
    "ExemplarTriplets": "barlow.objectives.exemplar_triplets",
    "Jigsaw": "barlow.objectives.jigsaw",
    "LinearProbe": "barlow.estimators",
    "Colorization": "barlow.objectives.colorization",
    "CPC": "barlow.objectives.cpc",
    "MoCo": "barlow.objectives.moco",
    "BYOLVICReg": "barlow.objectives.byol_vicreg",
    "MoCoV3": "barlow.objectives.moco_v3",
    "CMC": "barlow.objectives.cmc",
    "InfoMin": "barlow.objectives.infomin",
    "NPID": "barlow.objectives.npid",
    "PIRL": "barlow.objectives.pirl",
    "Supervised": "barlow.objectives.supervised",
    "SwAV": "barlow.objectives.swav",
    "OBoW": "barlow.objectives.obow",
    "PCL": "barlow.objectives.pcl",
    "Rotation": "barlow.objectives.rotation",
    "SimCLR": "barlow.objectives.simclr",
    "SimSiam": "barlow.objectives.simsiam",
    "VICReg": "barlow.objectives.vicreg",
    "VSE": "barlow.objectives.vse",
    "WMSE": "barlow.objectives.w_mse",
    "check": "barlow.checks.checking",
    "compare": "barlow.study",
    "detect": "barlow.detection.evaluating",
    "duplicates": "barlow.features.copy_finding",
    "Embedder": "barlow.features.embedder",
    "embed": "barlow.features.embedding",
    "evaluate": "barlow.evaluation",
    "evaluate_several": "barlow.evaluation",
    "find_encoder": "barlow.encoders",
    "export": "barlow.exporting",
    "import_weights": "barlow.importing",
    "load_encoder": "barlow.runs.finishing",
    "load_text_encoder": "barlow.text_branch",
    "pretrain": "barlow.pretraining",
    "retrieve": "barlow.caption_retrieval",
    "search": "barlow.features.searching",
}
__all__ = [
    "BYOL",
    "CMC",
    "CPC",
    "NPID",
    "PCL",
    "PIRL",
    "VSE",
    "WMSE",
    "BYOLVICReg",
    "BarlowTwins",
    "Colorization",
    "ContextPrediction",
    "Counting",
    "DeepClusterV1",
    "DeepClusterV2",
    "Embedder",
    "Encoder",
    "Exemplar",
    "ExemplarTriplets",
    "InfoMin",
    "Jigsaw",
    "LinearProbe",
    "MoCo",
    "MoCoV3",
    "OBoW",
    "Rotation",
    "SeLa",
    "SimCLR",
    "SimSiam",
    "Supervised",
    "SwAV",
    "VICReg",
    "__version__",
    "check",
    "compare",
    "detect",
    "duplicates",
    "embed",
    "evaluate",
    "evaluate_several",
    "export",
    "find_encoder",
    "import_weights",
    "load_encoder",
    "load_text_encoder",
    "pretrain",
    "retrieve",
    "search",
]

torchvision_guard.install()


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'barlow' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
