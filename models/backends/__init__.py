"""The runtimes, one file each, imported only in the replica that needs them.

Ask it for a backend by name (`onnxruntime`, `tensorflow`, `litert`); it never decides which model runs where.
"""
