"""The ports' real sides: sockets, files, clocks."""
