"""A strict reader of ``config.pbtxt``: protobuf's text format into the fields of Triton's ModelConfig that are used, and no others."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format  # type: ignore[import-untyped]  # no types published
from google.protobuf.message import Message  # type: ignore[import-untyped]  # as above

# Field numbers are those of triton-inference-server/common, protobuf/model_config.proto.
_ENUMS = {
    "DataType": "INVALID BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING BF16",
    "Kind": "AUTO GPU CPU MODEL",
}
_PREFIX = {"DataType": "TYPE_", "Kind": "KIND_"}
_MESSAGES = {
    "Reshape": "repeated int64 shape = 1",
    "Input": "string name = 1; DataType data_type = 2; repeated int64 dims = 4; Reshape reshape = 5",
    "Output": "string name = 1; DataType data_type = 2; repeated int64 dims = 3; Reshape reshape = 5",
    "Group": "Kind kind = 4; int32 count = 2; repeated string profile = 5",
    "ModelConfig": "string name = 1; string platform = 2; int32 max_batch_size = 4; repeated Input input = 5; repeated Output output = 6;"
    " repeated Group instance_group = 7",
}


def parse(text: str) -> Message:
    """Return the message; an unknown field, a wrong type or a wrong escape raises ``text_format.ParseError``."""
    config = _config_class()()
    text_format.Parse(text, config)
    return config


def _config_class() -> type[Message]:
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package="triton", syntax="proto3")
    for name, words in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, word in enumerate(words.split()):
            enum.value.add(name=_PREFIX[name] + word, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for repeated, kind, field, number in re.findall(r"(repeated )?(\w+) (\w+) = (\d+)", fields):
            added = message.field.add(name=field, number=int(number), label=3 if repeated else 1)
            if kind in _MESSAGES or kind in _ENUMS:
                added.type = field_type.TYPE_MESSAGE if kind in _MESSAGES else field_type.TYPE_ENUM
                added.type_name = f".triton.{kind}"
            else:
                added.type = {"string": field_type.TYPE_STRING, "int32": field_type.TYPE_INT32, "int64": field_type.TYPE_INT64}[kind]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made: type[Any] = message_factory.GetMessageClass(pool.FindMessageTypeByName("triton.ModelConfig"))
    return made
