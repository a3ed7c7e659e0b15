"""The local run: everything on loopback, nothing of it in a zip."""
