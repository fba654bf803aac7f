"""Train late-interaction (ColBERT) retrieval models, and use them, without PyTorch.

``RAGTrainer`` and ``RAGPretrainedModel`` have the signatures of RAGatouille 0.0.9.
"""

from ragtrainer._native import (
    BACKENDS,
    BackendError,
    DataError,
    DocumentError,
    FileError,
    ForkError,
    HubError,
    ModelError,
    OptionsError,
    RagTrainerError,
    TrainingError,
    __version__,
)
from ragtrainer._pretrained import Hit, RAGPretrainedModel
from ragtrainer._trainer import RAGTrainer

__all__ = [
    "BACKENDS",
    "BackendError",
    "DataError",
    "DocumentError",
    "FileError",
    "ForkError",
    "Hit",
    "HubError",
    "ModelError",
    "OptionsError",
    "RAGPretrainedModel",
    "RAGTrainer",
    "RagTrainerError",
    "TrainingError",
    "__version__",
]
