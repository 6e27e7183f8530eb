"""TensorFlow itself, imported quietly: it reads its log level once, while it is imported."""

import os

# 2: errors of the native half, no information and no warnings.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

# The graph loader logs on its first use that it is deprecated; it is the one that loads every SavedModel.
tf.get_logger().setLevel("ERROR")

__all__ = ["config_pb2", "tf"]
