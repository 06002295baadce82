"""Rehearse a Dockerfile without Docker: perform its steps in a clean root, then run what they made, and call it.

    python -m deploy.rehearse              # Dockerfile
    python -m deploy.rehearse Dockerfile.gpu

A base image is stood in for by Debian from debootstrap. Steps run in mount namespaces of their own, and what is built
runs as a container would: as process 1, as its user without capabilities, on a read-only root. Needs Linux and root.
"""
