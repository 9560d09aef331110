"""The channel: authenticated gRPC streams between agents, over mutual TLS. grpc is imported here and nowhere else."""
