"""The KServe v2 gRPC messages and service, generated from grpc_service.proto by `make proto`."""
