"""Loss functions, one short file per family; `LOSSES` lists them by name."""

from bslbench.losses.base import Batch, Loss, Setup, log_mean_exp
from bslbench.losses.pairwise import BPR
from bslbench.losses.pointwise import BCE, MSE
from bslbench.losses.softmax import BSL, SL, SSM, BSLInBatch, BSLReweight, BSLScaled

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
}

__all__ = [
    "BCE",
    "BPR",
    "BSL",
    "LOSSES",
    "MSE",
    "SL",
    "SSM",
    "BSLInBatch",
    "BSLReweight",
    "BSLScaled",
    "Batch",
    "Loss",
    "Setup",
    "log_mean_exp",
]
