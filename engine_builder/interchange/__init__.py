"""Other tools' files: Triton repositories, trtexec's settings."""
