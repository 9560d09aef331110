"""What `make bench` measures; a module a question, each runs by itself."""
