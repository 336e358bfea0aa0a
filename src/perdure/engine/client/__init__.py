"""What programs may ask of a hub: the client and its parts."""
