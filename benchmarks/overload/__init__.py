"""What happens when more is asked than there is: `make bench-overload`."""
