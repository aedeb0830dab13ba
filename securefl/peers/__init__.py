"""Point to point, without a central server: in each round one of the clients runs the server's session."""
