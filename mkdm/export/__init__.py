"""OpenVINO and ONNX files of a model, each through the quality gate, and a version of it in an MLflow registry.

May import `mkdm.evaluation` and what is below it.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from mkdm.export.export_run import ExportSettings
    from mkdm.export.mlflow_model import Registration, register
    from mkdm.export.onnx_export import export_onnx
    from mkdm.export.openvino_export import export_model
    from mkdm.export.quality_gate import ValidationPairs
else:
    __all__, __getattr__, __dir__ = door(__name__)
