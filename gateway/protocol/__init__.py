"""What goes over the wire, as bytes and types. No I/O."""
