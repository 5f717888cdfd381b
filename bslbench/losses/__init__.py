"""Loss functions, one short file per family; `LOSSES` lists them by name."""

from bslbench.losses.adversarial import AdvInfoNCE
from bslbench.losses.alignment import MAWU, DirectAU
from bslbench.losses.base import Batch, Loss, Setup, log_mean_exp
from bslbench.losses.contrastive import CCL, DrRL
from bslbench.losses.denoising import DCL, RCE, TCE
from bslbench.losses.pairwise import BPR, WARP, Hinge, SimCE
from bslbench.losses.partial_auc import LLPAUC
from bslbench.losses.pointwise import BCE, GBCE, MSE
from bslbench.losses.popularity import BC
from bslbench.losses.softmax import BSL, SL, SSM, BSLInBatch, BSLReweight, BSLScaled, SLShift
from bslbench.losses.softmax_relatives import PSL, FullSoftmax, SogCLR
from bslbench.losses.temperature import AdapTau
from bslbench.losses.topk import SLatK, Talos

LOSSES: dict[str, type[Loss]] = {
    "mse": MSE,
    "bce": BCE,
    "bpr": BPR,
    "sl": SL,
    "ssm": SSM,
    "bsl": BSL,
    "bsl_reweight": BSLReweight,
    "bsl_inbatch": BSLInBatch,
    "bsl_scaled": BSLScaled,
    "sl_shift": SLShift,
    "gbce": GBCE,
    "tce": TCE,
    "rce": RCE,
    "hinge": Hinge,
    "warp": WARP,
    "simce": SimCE,
    "ccl": CCL,
    "drrl": DrRL,
    "directau": DirectAU,
    "mawu": MAWU,
    "full_softmax": FullSoftmax,
    "psl": PSL,
    "sogclr": SogCLR,
    "dcl": DCL,
    "adap_tau": AdapTau,
    "advinfonce": AdvInfoNCE,
    "bc": BC,
    "sl_at_k": SLatK,
    "talos": Talos,
    "llpauc": LLPAUC,
}

__all__ = [
    "BC",
    "BCE",
    "BPR",
    "BSL",
    "CCL",
    "DCL",
    "GBCE",
    "LLPAUC",
    "LOSSES",
    "MAWU",
    "MSE",
    "PSL",
    "RCE",
    "SL",
    "SSM",
    "TCE",
    "WARP",
    "AdapTau",
    "AdvInfoNCE",
    "BSLInBatch",
    "BSLReweight",
    "BSLScaled",
    "Batch",
    "DirectAU",
    "DrRL",
    "FullSoftmax",
    "Hinge",
    "Loss",
    "SLShift",
    "SLatK",
    "Setup",
    "SimCE",
    "SogCLR",
    "Talos",
    "log_mean_exp",
]
