"""The KServe v2 protocol (Open Inference Protocol) with Triton's extensions, over HTTP and gRPC."""
