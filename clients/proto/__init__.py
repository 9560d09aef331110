"""What travels on the channel between agents: ``channel.proto``, and the code that protoc makes of it."""
