"""The student (1)-(6) and whatever is a model folder: config, checkpoint, content hash, fetching, tokenizer, zoo.

May import `mkdm.text`. A driver asks folder, ir_files and zoo, which need no torch.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from mkdm.model.checkpoint import PairModel, load_checkpoint, save_checkpoint
    from mkdm.model.cls_only import keep_cls_only, last_layer
    from mkdm.model.families import FAMILIES
    from mkdm.model.fetch import folder_of, is_uri
    from mkdm.model.fitness import check_fitness, checked_version
    from mkdm.model.folder import (
        check_max_length,
        ensemble_version,
        file_hash,
        model_folders,
        model_version,
        models_version,
        pinned_models,
        read_json,
        saved_length,
        tokenizer_version,
    )
    from mkdm.model.ir_files import (
        BY_SPEED,
        IR_FOLDER,
        IR_PRECISIONS,
        IR_RECORD,
        Export,
        ExportedModel,
        backend_for,
        check_backend,
        missing,
        own_files,
        read_export,
        text_part,
        verify,
    )
    from mkdm.model.labels import relevant_is_first
    from mkdm.model.lexical import Lexical, read_lexical
    from mkdm.model.lexical_module import LexicalModule
    from mkdm.model.mlflow_server import allow_files, asking, import_mlflow, is_chosen
    from mkdm.model.pinning import is_kept, packed, unpack
    from mkdm.model.prompting import PLAIN, Prompting, Wording, prompted_version, read_wording
    from mkdm.model.read_apart import embed, layers_of, position_offset
    from mkdm.model.separation import PASSAGE_POSITION, Separation, read_separation
    from mkdm.model.student import MkdmModel, output_score
    from mkdm.model.student_config import MkdmConfig
    from mkdm.model.tokenizer import load_tokenizer
    from mkdm.model.zoo import Teacher, read_zoo
else:
    __all__, __getattr__, __dir__ = door(__name__)
