"""The suite across two hosts made of namespaces, with a network between them that delays and loses packets."""
