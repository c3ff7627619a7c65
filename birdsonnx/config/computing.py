"""What may compute, and how precisely, and how answers are kept: the names that the config, the command line
and the engines share."""

from typing import Literal, get_args

EngineName = Literal["onnxruntime", "openvino"]
EngineChoice = Literal["auto", "onnxruntime", "openvino"]
ENGINE_CHOICES: tuple[EngineChoice, ...] = get_args(EngineChoice)

Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

TrainingPrecision = Literal["fp32", "bf16", "auto"]
TRAINING_PRECISIONS: tuple[TrainingPrecision, ...] = get_args(TrainingPrecision)

ExchangePrecision = Literal["fp32", "bf16"]
EXCHANGE_PRECISIONS: tuple[ExchangePrecision, ...] = get_args(ExchangePrecision)

FeaturePrecision = Literal["fp32", "fp16", "bf16", "int8"]
FEATURE_PRECISIONS: tuple[FeaturePrecision, ...] = get_args(FeaturePrecision)

OutputLayout = Literal["datasets", "table"]
OUTPUT_LAYOUTS: tuple[OutputLayout, ...] = get_args(OutputLayout)
