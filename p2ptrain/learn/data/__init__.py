"""Which examples a peer trains and measures on, and how they come to the device."""
